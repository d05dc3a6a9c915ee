"""Raw launches against the model, refusals, and the comparison that names a difference."""

import numpy as np
import pytest

from . import cases, launch
from .buffers import header_shape
from .cases import Descriptor, Row, random_case
from .fields import (
    FIELDS_PER_WORD,
    CompletionField,
    LaunchField,
    LaunchStatus,
    RowField,
    RowFlag,
)
from .kv import PageLayout
from .launch import Launch
from .model import Model, row_results
from .numerics import F32
from .tiny import make

ALL = RowFlag.residual | RowFlag.final_norm | RowFlag.target_logprob | RowFlag.row_result


def simple(rows, tables, inputs, packed, **changes) -> np.ndarray:
    shape = header_shape(packed.model)
    settings = dict(
        kv_streams=2, kv_pages=8, layer_begin=0, layer_end=shape.layers, gap=1
    ) | changes
    return Descriptor(
        rows, inputs, tables, hidden=shape.hidden, vocab=shape.vocab, **settings
    ).write()


def test_a_prompt_then_a_step_give_the_outputs_of_the_model():
    packed = make("odd", 3)
    model, embedding = Model(packed.weights()), packed.inputs()
    shape = model.shape
    layout = PageLayout(shape.layers, shape.kv_heads, shape.head_dim)
    arenas = cases.kv_arenas(layout, 2, 8)
    ids = np.random.default_rng(0).integers(0, shape.vocab, 41)
    cache = model.new_cache()
    residual = model.run(embedding[ids], np.zeros(41, np.int64), np.arange(41), cache)
    normed = model.final_norm(residual)
    logits = model.logits(normed)
    results = row_results(logits)

    for rows in (range(0, 40), range(40, 41)):
        table = [Row(0, p, int(ALL), target=p) for p in rows]
        desc = simple(table, [[6, 3]], embedding[ids[list(rows)]], packed)
        outcome = launch.run(desc, packed.model, packed.arenas, arenas)
        assert outcome.status == LaunchStatus.ok
        found = {region.what: region.values for region in outcome.result + outcome.scratch}
        for row, p in enumerate(rows):
            hidden = found[f"row {row}: residual"].view("<f4")[: shape.hidden]
            assert (hidden == residual[p]).all()
            assert (found[f"row {row}: final norm"].view("<f4")[: shape.hidden] == normed[p]).all()
            slot = found[f"row {row}: logits"].view("<f4")
            assert len(slot) == 320 and (slot[:300] == logits[p]).all() and not slot[300:].any()
            record = found[f"row {row}: row result"]
            assert len(record) == 9 * FIELDS_PER_WORD and record[0] == results.argmax[p]
            logprob = record.view("<f4")[3]
            assert logprob == logits[p, p] - results.log_sum_exp[p]
            assert (record.view("<f4")[16:80] == results.top_logits[p]).all()
            assert (record[80:] == results.top_ids[p]).all()
    paged = launch.PagedCache(layout, arenas, [np.array([6, 3])])
    assert (paged.page(6) == cache.page(0, 0, 41)).all()
    assert (paged.page(3) == cache.page(0, 1, 41)).all()


def test_row_result_without_flags_is_left_out():
    packed = make("plain", 2)
    layout = PageLayout(2, 2, 16)
    flags = 0, int(RowFlag.target_logprob), int(RowFlag.row_result)
    rows = [Row(0, position, of_row) for position, of_row in enumerate(flags)]
    desc = simple(rows, [[0]], packed.inputs()[:3], packed)
    outcome = launch.run(desc, packed.model, packed.arenas, cases.kv_arenas(layout, 2, 8))
    sizes = {region.what: len(region.values) // FIELDS_PER_WORD for region in outcome.result}
    assert sizes == {"completion record": 1, "row 1: row result": 1, "row 2: row result": 9}
    row_result = outcome.result[-1].values
    assert row_result[3] == 0


REFUSALS = {
    "magic": (lambda w: w.__setitem__(LaunchField.magic, 1), LaunchStatus.bad_magic),
    "version": (lambda w: w.__setitem__(LaunchField.version, 2), LaunchStatus.bad_version),
    "layer end": (lambda w: w.__setitem__(LaunchField.layer_end, 3), LaunchStatus.bad_layers),
    "layer begin": (lambda w: w.__setitem__(LaunchField.layer_begin, 9), LaunchStatus.bad_layers),
    "pages": (lambda w: w.__setitem__(LaunchField.kv_pages, 5), LaunchStatus.bad_page),
    "table": (lambda w: w.__setitem__(LaunchField.sequences, 0), LaunchStatus.bad_row),
    "slots": (lambda w: w.__setitem__(LaunchField.logits_slots, 1), LaunchStatus.bad_row),
}
ROW_REFUSALS = {
    "sequence": (RowField.sequence, 1),
    "position beyond the context": (RowField.position, 256),
    "position that does not ascend": (RowField.position, 3),
    "target": (RowField.target, 97),
}


def refused_desc():
    packed = make("plain", 2)
    rows = [Row(0, 3, int(ALL)), Row(0, 4, int(ALL))]
    return packed, simple(rows, [[5]], packed.inputs()[:2], packed, id=1234)


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_headers_are_refused(name):
    packed, desc = refused_desc()
    change, status = REFUSALS[name]
    change(desc.view("<u4"))
    expect_refusal(packed, desc, status)


@pytest.mark.parametrize("name", ROW_REFUSALS)
def test_bad_rows_are_refused(name):
    packed, desc = refused_desc()
    field, value = ROW_REFUSALS[name]
    second = (Launch(desc).header[LaunchField.row_table] + 1) * FIELDS_PER_WORD
    desc.view("<u4")[second + field] = value
    expect_refusal(packed, desc, LaunchStatus.bad_row)


def expect_refusal(packed, desc, status, **kwargs):
    arenas = cases.kv_arenas(PageLayout(2, 2, 16), 2, 8)
    outcome = launch.run(desc, packed.model, packed.arenas, arenas, **kwargs)
    assert outcome.status == status
    assert [region.what for region in outcome.result] == ["completion record"]
    record = outcome.result[0].values
    assert record[CompletionField.status] == status and record[CompletionField.id] == 1234
    assert not outcome.scratch and not any(arena.any() for arena in arenas)


def test_maxima_refuse():
    packed, desc = refused_desc()
    expect_refusal(packed, desc, LaunchStatus.beyond_maxima, maxima={"ffn": 171})


@pytest.mark.parametrize("seed", range(14))
def test_random_cases_agree_with_themselves_through_files(tmp_path, seed, capsys):
    random_case(seed).save(tmp_path)
    assert launch.main(["--dir", str(tmp_path)]) == 0
    assert launch.main(["--dir", str(tmp_path), "--expect"]) == 0
    assert "equal (ok)" in capsys.readouterr().out


def spoil(path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_the_first_difference_is_named(tmp_path, capsys):
    packed = make("plain", 2)
    layout = PageLayout(2, 2, 16)
    rows = [Row(0, p, int(ALL)) for p in range(3)]
    desc = simple(rows, [[0]], packed.inputs()[:3], packed, gap=0)
    cases.Case(desc, packed, cases.kv_arenas(layout, 2, 8)).save(tmp_path)

    def complaint(file: str, at: int) -> str:
        assert launch.main(["--dir", str(tmp_path)]) == 0
        spoil(tmp_path / file, at)
        assert launch.main(["--dir", str(tmp_path), "--expect"]) == 1
        return capsys.readouterr().out

    assert "completion record, index 3" in complaint("result.bin", 12)
    first = 64 + 2 * 256 + 9 * 64  # record; residual, final norm and result of row 0
    assert "row 1: residual, index 5" in complaint("result.bin", first + 20)
    assert "row 1: row result, index 80" in complaint("result.bin", first + 512 + 320)
    assert "row 2: logits, index 7" in complaint("scratch.bin", 2 * 8 * 64 + 28)
    at = layout.layer_bytes + layout.scale_bytes + layout.half_bytes + 2 * 128 + 64
    found = complaint("kv00.after.bin", at)
    assert "page 0, layer 1, values of token 2" in found


def test_inputs_that_are_denormal_pass_an_empty_range_untouched():
    packed = make("plain", 2)
    inputs = np.full((1, 64), 1e-40, F32)
    desc = simple([Row(0, 0, int(RowFlag.residual))], [[0]], inputs, packed, layer_end=0)
    arenas = cases.kv_arenas(PageLayout(2, 2, 16), 2, 8)
    outcome = launch.run(desc, packed.model, packed.arenas, arenas)
    assert (outcome.result[1].values.view("<f4") == inputs[0]).all()
