"""docs/launch.md: runs a launch on raw buffers, as a kernel would.

    python -m tests.reference.launch --dir CASE [--expect] [--maxima ACCELERATOR.json]

CASE holds the buffers as they are before the launch:

    desc.bin, model.bin, w00.bin .., kv00.bin ..

Without --expect the buffers after the launch are written beside them: result.bin, scratch.bin (up
to the end of the logits slots) and kv00.after.bin ... With --expect those files are somebody else's
and are compared: everything the contract defines must be equal, NaN payloads apart; the first
difference is named and the exit status is 1. Bytes of result and scratch that no output owns are
not compared; pages are compared whole. A scratch.bin may be left out if no row asks for logits.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .buffers import header_shape, read_model
from .fields import (
    CONTRACT_VERSION,
    FIELDS_PER_WORD,
    LAUNCH_MAGIC,
    MODEL_MAGIC,
    RESULT_MAGIC,
    ROW_RESULT_WORDS,
    TOP_LOGITS,
    CompletionField,
    LaunchField,
    LaunchStatus,
    ModelField,
    ResultField,
    RowField,
    RowFlag,
)
from .kv import PAGE_TOKENS, PagedCache, PageLayout
from .layout import TILE_ROWS, WORD, Bytes, divide_up, float_words
from .model import Model, log_sum_exp, row_results, target_logprob
from .numerics import F32, Floats

Words = np.ndarray  # uint32


@dataclass(frozen=True)
class Region:
    """Words that an output owns in a buffer; `kinds` says per uint32 whether it is a float."""

    what: str
    word: int
    values: Words
    is_float: np.ndarray


@dataclass
class Outcome:
    """What a launch leaves behind: regions of result and scratch, and the pages it wrote in."""

    status: LaunchStatus
    result: list[Region] = field(default_factory=list)
    scratch: list[Region] = field(default_factory=list)


def logits_words(vocab: int) -> int:
    """A logits row covers whole tiles of 32 outputs."""
    return divide_up(vocab, TILE_ROWS) * (TILE_ROWS // FIELDS_PER_WORD)


def whole_words(values: np.ndarray, words: int) -> Words:
    out = np.zeros(words * FIELDS_PER_WORD, "<u4")
    out[: values.size] = np.ascontiguousarray(values).view("<u4")
    return out


class Launch:
    """A descriptor buffer, field by field."""

    def __init__(self, desc: Bytes):
        self.words = desc.view("<u4")
        self.header = {f: int(self.words[f]) for f in LaunchField if f != LaunchField.fields}
        self.rows = self.header[LaunchField.rows]

    def block(self, word: int, count: int, stride: int) -> Words:
        """`count` records of `stride` words each."""
        start, size = word * FIELDS_PER_WORD, count * stride * FIELDS_PER_WORD
        return self.words[start : start + size].reshape(count, -1)

    @property
    def row_table(self) -> Words:
        return self.block(self.header[LaunchField.row_table], self.rows, 1).astype(np.int64)

    @property
    def page_tables(self) -> Words:
        h = self.header
        stride = h[LaunchField.page_table_stride]
        tables = self.block(h[LaunchField.page_tables], h[LaunchField.sequences], stride)
        return tables.astype(np.int64)

    def inputs(self, hidden: int) -> Floats:
        at = self.header[LaunchField.inputs]
        return self.block(at, self.rows, float_words(hidden)).view("<f4")[:, :hidden].copy()


# ---- why a launch is refused -------------------------------------------------------------------


def check(desc: Bytes, model: Bytes, maxima: dict[str, int]) -> LaunchStatus:
    """The first reason, in the order of the enumeration."""
    head, words = desc.view("<u4"), model.view("<u4")
    if head[LaunchField.magic] != LAUNCH_MAGIC or words[ModelField.magic] != MODEL_MAGIC:
        return LaunchStatus.bad_magic
    if {int(head[LaunchField.version]), int(words[ModelField.version])} != {CONTRACT_VERSION}:
        return LaunchStatus.bad_version
    shape, launch = header_shape(model), Launch(desc)
    h = launch.header
    sizes = {
        "d": shape.hidden,
        "ffn": shape.ffn,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "context": shape.context,
        "vocabulary": shape.vocab,
    }
    if any(size > maxima.get(name, size) for name, size in sizes.items()):
        return LaunchStatus.beyond_maxima
    if not h[LaunchField.layer_begin] <= h[LaunchField.layer_end] <= shape.layers:
        return LaunchStatus.bad_layers
    if launch.rows and _bad_row(launch, shape.context, shape.vocab):
        return LaunchStatus.bad_row
    if launch.rows and _bad_page(launch):
        return LaunchStatus.bad_page
    return LaunchStatus.ok


def _bad_row(launch: Launch, context: int, vocab: int) -> bool:
    table, h = launch.row_table, launch.header
    sequence, position = table[:, RowField.sequence], table[:, RowField.position]
    if (sequence >= h[LaunchField.sequences]).any() or (position >= context).any():
        return True
    if any((np.diff(position[sequence == s]) <= 0).any() for s in np.unique(sequence)):
        return True
    flags = table[:, RowField.flags]
    targets = table[(flags & RowFlag.target_logprob) != 0, RowField.target]
    slots = table[(flags & RowFlag.needs_logits) != 0, RowField.logits_slot]
    outside = (targets >= vocab).any() or (slots >= h[LaunchField.logits_slots]).any()
    return bool(outside)


def _bad_page(launch: Launch) -> bool:
    """Only entries that a row reads or writes matter."""
    table, tables = launch.row_table, launch.page_tables
    for s in np.unique(table[:, RowField.sequence]):
        used = int(table[table[:, RowField.sequence] == s, RowField.position].max())
        used = used // PAGE_TOKENS + 1
        ids = tables[s][:used]
        if len(ids) < used or (ids >= launch.header[LaunchField.kv_pages]).any():
            return True
    return False


# ---- running it --------------------------------------------------------------------------------


def run(
    desc: Bytes,
    model: Bytes,
    weights: Sequence[Bytes],
    kv: Sequence[Bytes],
    maxima: dict[str, int] | None = None,
    loaded: Model | None = None,
) -> Outcome:
    """Pages in `kv` change in place. `loaded` saves reading the arenas again."""
    outcome = Outcome(check(desc, model, maxima or {}))
    if outcome.status == LaunchStatus.ok:
        launch, shape = Launch(desc), header_shape(model)
        if len(kv) != launch.header[LaunchField.kv_streams]:
            raise ValueError(f"{launch.header[LaunchField.kv_streams]} KV streams, {len(kv)} files")
        if launch.rows:
            layout = PageLayout(shape.layers, shape.kv_heads, shape.head_dim)
            cache = PagedCache(layout, kv, launch.page_tables)
            _run_rows(launch, loaded or Model(read_model(model, weights)), cache, outcome)
    record = np.zeros(CompletionField.fields, "<u4")
    record[CompletionField.magic] = RESULT_MAGIC
    record[CompletionField.version] = CONTRACT_VERSION
    record[CompletionField.id] = desc.view("<u4")[LaunchField.id]
    record[CompletionField.status] = outcome.status
    if outcome.status == LaunchStatus.ok:
        record[CompletionField.rows] = desc.view("<u4")[LaunchField.rows]
    outcome.result.insert(0, Region("completion record", 0, record, np.zeros(len(record), bool)))
    return outcome


def _run_rows(launch: Launch, model: Model, cache: PagedCache, outcome: Outcome) -> None:
    table, shape = launch.row_table, model.shape
    flags = table[:, RowField.flags]
    residual = model.run(
        launch.inputs(shape.hidden),
        table[:, RowField.sequence],
        table[:, RowField.position],
        cache,
        launch.header[LaunchField.layer_begin],
        launch.header[LaunchField.layer_end],
    )

    def put(name: str, field_: RowField, rows: np.ndarray, values: Floats) -> None:
        size = float_words(shape.hidden)
        for row, vector in zip(rows, values):
            words = whole_words(vector, size)
            floats = np.ones(len(words), bool)
            at = int(table[row, field_])
            outcome.result.append(Region(f"row {row}: {name}", at, words, floats))

    rows = np.flatnonzero(flags & RowFlag.residual)
    put("residual", RowField.residual, rows, residual[rows])
    rows = np.flatnonzero(flags & (RowFlag.final_norm | RowFlag.needs_logits))
    normed = np.zeros_like(residual)
    normed[rows] = model.final_norm(residual[rows])
    rows = np.flatnonzero(flags & RowFlag.final_norm)
    put("final norm", RowField.final_norm, rows, normed[rows])

    rows = np.flatnonzero(flags & RowFlag.needs_logits)
    if not len(rows):
        return
    logits = model.logits(normed[rows])
    slot_words = logits_words(shape.vocab)
    for row, vector in zip(rows, logits):
        at = launch.header[LaunchField.logits] + int(table[row, RowField.logits_slot]) * slot_words
        # Padding logits of a row that is not finite are anybody's.
        words = whole_words(vector, slot_words) if np.isfinite(vector).all() else vector.view("<u4")
        outcome.scratch.append(Region(f"row {row}: logits", at, words, np.ones(len(words), bool)))
    targets = np.where(flags & RowFlag.target_logprob, table[:, RowField.target], 0)[rows]
    _row_results(rows, table[rows], logits, targets, outcome)


def _row_results(
    rows: np.ndarray, table: Words, logits: Floats, targets: np.ndarray, outcome: Outcome
) -> None:
    results = row_results(logits)
    logprobs = target_logprob(logits, results.log_sum_exp, targets)
    is_float = np.zeros((ROW_RESULT_WORDS, FIELDS_PER_WORD), bool)
    is_float[0, [ResultField.max, ResultField.log_sum_exp, ResultField.target_logprob]] = True
    is_float[1 : 1 + TOP_LOGITS // FIELDS_PER_WORD] = True
    for index, row in enumerate(rows):
        flags = int(table[index, RowField.flags])
        first = np.zeros(ResultField.fields, "<u4")
        first[ResultField.argmax] = results.argmax[index]
        first.view("<f4")[ResultField.max] = results.maximum[index]
        first.view("<f4")[ResultField.log_sum_exp] = results.log_sum_exp[index]
        if flags & RowFlag.target_logprob:
            first.view("<f4")[ResultField.target_logprob] = logprobs[index]
        parts = [first]
        if flags & RowFlag.row_result:
            parts += [results.top_logits[index].view("<u4"), results.top_ids[index]]
        words = np.concatenate(parts)
        at = int(table[index, RowField.row_result])
        kinds = is_float.reshape(-1)[: len(words)]
        outcome.result.append(Region(f"row {row}: row result", at, words, kinds))


# ---- files and comparison ----------------------------------------------------------------------


def difference(region: Region, words: Words) -> str | None:
    """Names the first field in which `words`, a whole buffer, differs from the region."""
    start = region.word * FIELDS_PER_WORD
    found = words[start : start + len(region.values)]
    if len(found) < len(region.values):
        return f"{region.what}: lies behind the buffer of {len(words) * 4} bytes"
    nan = region.is_float & np.isnan(region.values.view("<f4")) & np.isnan(found.view("<f4"))
    wrong = np.flatnonzero((found != region.values) & ~nan)
    if not len(wrong):
        return None
    at = int(wrong[0])
    mine, theirs = region.values[at : at + 1], found[at : at + 1]
    text = f"{region.what}, index {at}: reference {mine[0]:#010x}, found {theirs[0]:#010x}"
    if region.is_float[at]:
        text += f" ({mine.view('<f4')[0]:.9g} and {theirs.view('<f4')[0]:.9g})"
    return f"{text}; {len(wrong)} of {len(region.values)} differ"


def page_difference(name: str, stream: int, streams: int, layout: PageLayout, mine, theirs):
    if len(mine) != len(theirs):
        return f"{name}: reference {len(mine)} bytes, found {len(theirs)}"
    wrong = np.flatnonzero(mine != theirs)
    if not len(wrong):
        return None
    at = int(wrong[0])
    page, inside = divmod(at, layout.page_bytes)
    layer, inside = divmod(inside, layout.layer_bytes)
    if inside < layout.scale_bytes:
        part, token = "scales", inside // (layout.scale_words * WORD)
    else:
        half, inside = divmod(inside - layout.scale_bytes, layout.half_bytes)
        part, token = ("keys", "values")[half], inside // (layout.kv_heads * layout.head_bytes)
    return (
        f"{name}, byte {at} (page {page * streams + stream}, layer {layer}, {part} of token "
        f"{token}): reference {mine[at]:#04x}, found {theirs[at]:#04x}; {len(wrong)} differ"
    )


def read_buffer(path: Path) -> Bytes:
    return np.fromfile(path, np.uint8)


def filled(regions: Sequence[Region], size: int) -> Words:
    words = np.zeros(size * FIELDS_PER_WORD, "<u4")
    for region in regions:
        start = region.word * FIELDS_PER_WORD
        words[start : start + len(region.values)] = region.values
    return words


def _compare(case: Path, outcome: Outcome, kv: Sequence[Bytes], layout: PageLayout) -> str | None:
    for file, regions in (("result.bin", outcome.result), ("scratch.bin", outcome.scratch)):
        words = read_buffer(case / file).view("<u4") if regions else None
        for region in regions:
            if found := difference(region, words):
                return f"{file}: {found}"
    for stream, mine in enumerate(kv):
        name = f"kv{stream:02d}.after.bin"
        theirs = read_buffer(case / name)
        if found := page_difference(name, stream, len(kv), layout, mine, theirs):
            return found
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run or check a launch on raw buffers.")
    parser.add_argument("--dir", type=Path, required=True, help="folder with the buffers")
    parser.add_argument("--expect", action="store_true", help="compare with the files there")
    parser.add_argument("--maxima", type=Path, help="accelerator JSON whose maxima refuse launches")
    args = parser.parse_args(arguments)
    case: Path = args.dir
    desc, model = read_buffer(case / "desc.bin"), read_buffer(case / "model.bin")
    weights = [read_buffer(path) for path in sorted(case.glob("w[0-9][0-9].bin"))]
    kv = [read_buffer(path) for path in sorted(case.glob("kv[0-9][0-9].bin"))]
    maxima = json.loads(args.maxima.read_text())["maxima"] if args.maxima else {}
    try:
        outcome = run(desc, model, weights, kv, maxima)
    except ValueError as error:
        print(f"{case}: {error}", file=sys.stderr)
        return 2
    shape = header_shape(model)
    if args.expect:
        layout = PageLayout(shape.layers, shape.kv_heads, shape.head_dim)
        if found := _compare(case, outcome, kv, layout):
            print(f"{case}: {found}")
            return 1
        print(f"{case}: equal ({outcome.status.name})")
        return 0
    header = Launch(desc).header
    result_size = header[LaunchField.result_words] if outcome.status == LaunchStatus.ok else 1
    filled(outcome.result, result_size).tofile(case / "result.bin")
    slots = header[LaunchField.logits_slots] if outcome.scratch else 0
    end = header[LaunchField.logits] + slots * logits_words(shape.vocab)
    filled(outcome.scratch, end if slots else 0).tofile(case / "scratch.bin")
    for stream, arena in enumerate(kv):
        arena.tofile(case / f"kv{stream:02d}.after.bin")
    return 0


if __name__ == "__main__":
    sys.exit(main())
