"""Random launches on tiny models, as descriptor buffers and as case folders for `launch`.

    python -m tests.reference.cases --out FOLDER [--kind ordinary] [--count 20] [--seed 0]
        [--no-result]

FOLDER/000, 001, ... hold the buffers before the launch and, unless --no-result, those after it.
Kinds: `ordinary`; `extreme`, with denormal, huge, infinite, NaN and tied numbers wherever a buffer
has floats; `refused`, an ordinary launch with one field that is out of range.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import launch, tiny
from .buffers import Weights
from .fields import (
    CONTRACT_VERSION,
    FIELDS_PER_WORD,
    LAUNCH_MAGIC,
    ROW_RESULT_WORDS,
    LaunchField,
    RowField,
    RowFlag,
)
from .kv import PAGE_TOKENS, PageLayout
from .layout import BUFFER, WORD, Bytes, divide_up, float_words
from .numerics import F32, Floats
from .packed import Packed, pack


@dataclass(frozen=True)
class Row:
    sequence: int
    position: int
    flags: int = 0
    target: int = 0


@dataclass
class Descriptor:
    """Everything of a launch; offsets are assigned when it is written."""

    rows: Sequence[Row]
    inputs: Floats
    tables: Sequence[Sequence[int]]  # page ids, per sequence
    kv_streams: int
    kv_pages: int
    layer_begin: int
    layer_end: int
    hidden: int
    vocab: int
    id: int = 1
    slots: Sequence[int] = field(default_factory=list)  # logits slot per row; default: the row
    gap: int = 0  # unused words between parts, to find whoever ignores an offset

    def write(self) -> Bytes:
        row_words = float_words(self.hidden)
        stride = max(1, max((divide_up(len(t), FIELDS_PER_WORD) for t in self.tables), default=1))
        at = LaunchField.fields // FIELDS_PER_WORD + self.gap
        row_table, at = at, at + len(self.rows) + self.gap
        page_tables, at = at, at + len(self.tables) * stride + self.gap
        inputs, at = at, at + len(self.rows) * row_words
        size = divide_up(at * WORD, BUFFER) * BUFFER
        words = np.zeros(size // 4, "<u4")

        slots = list(self.slots) or list(range(len(self.rows)))
        result = 1 + self.gap
        for index, row in enumerate(self.rows):
            record = words[(row_table + index) * FIELDS_PER_WORD :][: RowField.fields]
            record[RowField.sequence] = row.sequence
            record[RowField.position] = row.position
            record[RowField.flags] = row.flags
            record[RowField.target] = row.target
            record[RowField.logits_slot] = slots[index]
            record[RowField.residual] = result
            result += row_words + self.gap if row.flags & RowFlag.residual else 0
            record[RowField.final_norm] = result
            result += row_words + self.gap if row.flags & RowFlag.final_norm else 0
            record[RowField.row_result] = result
            result += ROW_RESULT_WORDS + self.gap if row.flags & RowFlag.needs_logits else 0
        for index, table in enumerate(self.tables):
            start = (page_tables + index * stride) * FIELDS_PER_WORD
            words[start : start + len(table)] = table
        for index, vector in enumerate(np.asarray(self.inputs, F32)):
            start = (inputs + index * row_words) * FIELDS_PER_WORD
            words.view("<f4")[start : start + self.hidden] = vector

        logits_slots = max(slots, default=0) + 1
        fields = {
            LaunchField.magic: LAUNCH_MAGIC,
            LaunchField.version: CONTRACT_VERSION,
            LaunchField.id: self.id,
            LaunchField.layer_begin: self.layer_begin,
            LaunchField.layer_end: self.layer_end,
            LaunchField.rows: len(self.rows),
            LaunchField.sequences: len(self.tables),
            LaunchField.row_table: row_table,
            LaunchField.page_tables: page_tables,
            LaunchField.page_table_stride: stride,
            LaunchField.inputs: inputs,
            LaunchField.kv_streams: self.kv_streams,
            LaunchField.kv_pages: self.kv_pages,
            LaunchField.logits: self.gap,
            LaunchField.logits_slots: logits_slots,
            LaunchField.work: self.gap + logits_slots * launch.logits_words(self.vocab),
            LaunchField.result_words: divide_up(result * WORD, BUFFER) * BUFFER // WORD,
        }
        for field_, value in fields.items():
            words[field_] = value
        return words.view(np.uint8)


@dataclass
class Case:
    desc: Bytes
    packed: Packed
    kv: list[Bytes]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.desc.tofile(folder / "desc.bin")
        self.packed.model.tofile(folder / "model.bin")
        for stream, arena in enumerate(self.packed.arenas):
            arena.tofile(folder / f"w{stream:02d}.bin")
        for stream, arena in enumerate(self.kv):
            arena.tofile(folder / f"kv{stream:02d}.bin")


def kv_arenas(layout: PageLayout, streams: int, pages: int) -> list[Bytes]:
    size = divide_up(divide_up(pages, streams) * layout.page_bytes, BUFFER) * BUFFER
    return [np.zeros(size, np.uint8) for _ in range(streams)]


def fill_pages(
    rng: np.random.Generator, layout: PageLayout, arenas: Sequence[Bytes], extreme: bool
) -> None:
    """Records everywhere, as earlier launches would have left them."""
    for arena in arenas:
        for at in range(0, len(arena) - layout.page_bytes + 1, layout.page_bytes):
            page = arena[at : at + layout.page_bytes]
            for layer in range(layout.layers):
                scales, *halves = layout.views(page, layer)
                used = scales[:, : 2 * layout.kv_heads]
                used[:] = rng.uniform(0.005, 0.03, used.shape)
                if extreme:
                    used[:] = spread(rng, used, 0.3, -43, 3)
                for half in halves:
                    used = half[..., : layout.head_dim]
                    used[:] = rng.integers(-127, 128, used.shape)


def spread(rng: np.random.Generator, x: Floats, share: float, low: float, high: float) -> Floats:
    """x with a share of its elements scaled by 10^low to 10^high and some zeroed."""
    powers = 10.0 ** rng.uniform(low, high, x.shape)
    powers[rng.random(x.shape) < 0.05] = 0
    return (x * np.where(rng.random(x.shape) < share, powers, 1)).astype(F32)


def make_extreme(rng: np.random.Generator, weights: Weights) -> None:
    """Denormal and large scales, sums, biases and gains; negative scales; tied logits."""

    def change(x: Floats | None, share: float = 0.2) -> None:
        if x is not None:
            x[:] = spread(rng, x, share, -45, 2)

    for layer in weights.layers:
        for matrix in (layer.qkv, layer.o, layer.gate, layer.up, layer.down):
            change(matrix.scales)
            change(matrix.sums)
            if matrix.precision.bias:
                change(matrix.bias)
            matrix.scales[::7] *= -1
        for gain in (layer.attention_norm, layer.ffn_norm, layer.q_norm, layer.k_norm):
            change(gain)
    change(weights.final_norm)
    head = weights.lm_head
    half = head.outputs // 2
    order = rng.permutation(half)
    for part in (head.weights, head.multipliers, head.scales, head.sums):
        part[half : 2 * half] = part[order]
    change(head.scales[:half], 0.1)


def extreme_inputs(rng: np.random.Generator, inputs: Floats) -> Floats:
    """Rows by turns: as they are, spread over all magnitudes, tiny, huge, not finite, constant."""
    inputs[1::6] = spread(rng, inputs[1::6], 0.9, -45, 30)
    inputs[2::6] *= F32(1e-38)
    inputs[3::6] *= F32(1e30)
    unusual = np.array([np.nan, np.inf, -np.inf], F32)
    for row in inputs[4::6]:
        row[rng.integers(0, len(row), 3)] = rng.choice(unusual, 3)
    inputs[5::6] = F32(-0.0)
    return inputs


def random_case(seed: int, kind: str = "ordinary") -> Case:
    """Another model, stream counts, sequences, positions, layers, flags and slots for each seed."""
    rng = np.random.default_rng([seed, 77])
    names = list(tiny.SPECS)
    name = names[seed % len(names)]
    spec = tiny.SPECS[name]
    weights, embedding = tiny.build(spec, seed)
    if kind == "extreme":
        with np.errstate(all="ignore"):
            make_extreme(rng, weights)
    streams = int(rng.integers(1, 17))
    packed = pack(weights, streams, embedding, tiny.metadata(name, spec))
    shape = weights.shape
    layout = PageLayout(shape.layers, shape.kv_heads, shape.head_dim)

    sequences = int(rng.integers(1, 5))
    kv_streams = int(rng.integers(1, 5))
    table_size = int(rng.integers(1, shape.context // PAGE_TOKENS + 1))
    kv_pages = sequences * table_size + int(rng.integers(0, 5))
    tables = rng.permutation(kv_pages)[: sequences * table_size].reshape(sequences, table_size)
    arenas = kv_arenas(layout, kv_streams, kv_pages)
    fill_pages(rng, layout, arenas, kind == "extreme")

    rows = []
    for sequence in range(sequences):
        count = int(rng.choice([0, 1, 1, 2, 5, 33]))
        first = int(rng.integers(0, table_size * PAGE_TOKENS))
        for position in range(first, min(first + count, table_size * PAGE_TOKENS)):
            flags = int(rng.integers(0, 16))
            rows.append(Row(sequence, position, flags, int(rng.integers(0, shape.vocab))))
    order = rng.permutation(len(rows))  # sequences mixed, each still ascending
    rows = sorted(rows, key=lambda row: row.position) if seed % 3 == 0 else rows
    begin = int(rng.integers(0, 2)) if seed % 4 == 1 else 0
    inputs = rng.normal(0, 1, (len(rows), shape.hidden)).astype(F32)
    if kind == "extreme":
        with np.errstate(all="ignore"):
            inputs = extreme_inputs(rng, inputs)
    descriptor = Descriptor(
        rows,
        inputs,
        tables.tolist(),
        kv_streams,
        kv_pages,
        begin,
        shape.layers if seed % 4 < 2 else int(rng.integers(begin, shape.layers + 1)),
        shape.hidden,
        shape.vocab,
        id=int(rng.integers(1 << 32)),
        slots=order.tolist(),
        gap=seed % 3,
    )
    desc = descriptor.write()
    if kind == "refused":
        spoil(rng, desc)
    return Case(desc, packed, arenas)


def spoil(rng: np.random.Generator, desc: Bytes) -> None:
    """One field of the header or of a row becomes too large."""
    words, parsed = desc.view("<u4"), launch.Launch(desc)
    header = [
        LaunchField.magic,
        LaunchField.version,
        LaunchField.layer_begin,
        LaunchField.layer_end,
        LaunchField.kv_pages,
    ]
    row = [RowField.sequence, RowField.position, RowField.target, RowField.logits_slot]
    choice = int(rng.integers(0, len(header) + (len(row) if parsed.rows else 0)))
    if choice < len(header):
        field_ = header[choice]
        words[field_] = 0 if field_ == LaunchField.kv_pages else 0xFFFFFFF0
        return
    at = parsed.header[LaunchField.row_table] + int(rng.integers(0, parsed.rows))
    words[at * FIELDS_PER_WORD + row[choice - len(header)]] = 0xFFFFFFF0
    words[at * FIELDS_PER_WORD + RowField.flags] |= RowFlag.needs_logits


def main() -> None:
    parser = argparse.ArgumentParser(description="Write random launches as case folders.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", choices=("ordinary", "extreme", "refused"), default="ordinary")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-result", action="store_true", help="only the buffers before")
    args = parser.parse_args()
    for index in range(args.count):
        folder = args.out / f"{index:03d}"
        random_case(args.seed + index, args.kind).save(folder)
        if not args.no_result:
            launch.main(["--dir", str(folder)])


if __name__ == "__main__":
    main()
