"""Bytes of weight tiles, of the model buffer and of the packed file."""

import json

import numpy as np
import pytest
import safetensors.numpy

from . import buffers, layout, packed, tiny
from .layout import Precision, TileShape
from .numerics import F32

PRECISIONS = [
    Precision(weights, activations, grouped, bias)
    for weights in (4, 8)
    for activations in (4, 8)
    for grouped in (False, True)
    for bias in (False, True)
] + [Precision(4, 4, symmetric=True, clip=38), Precision(8, 8, clip=255)]


def equal(a, b) -> bool:
    """Of nested dataclasses, sequences and arrays."""
    if hasattr(a, "__dataclass_fields__"):
        return all(equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("precision", PRECISIONS, ids=lambda p: f"{p.encode():#05x}")
@pytest.mark.parametrize("outputs, inputs", [(1, 4), (32, 64), (97, 172), (64, 128)])
def test_tiles_round_trip(precision, outputs, inputs):
    assert Precision.decode(precision.encode()) == precision
    matrix = tiny.random_matrix(np.random.default_rng(outputs), outputs, inputs, precision)
    tiles = layout.encode_tiles(matrix)
    assert tiles.shape == (-(-outputs // 32), TileShape(inputs, precision).bytes)
    assert equal(layout.decode_tiles(tiles, outputs, inputs, precision), matrix)


def test_where_every_number_of_a_tile_lies():
    """A second reading of the page, number by number."""
    precision = Precision(8, 8, grouped=True, bias=True)
    matrix = tiny.random_matrix(np.random.default_rng(1), 40, 172, precision)
    tile = layout.encode_tiles(matrix)[1]
    rows, groups, plane_words = 8, 3, 43
    multipliers, planes = 6 * 64, 6 * 64 + 2 * 64
    assert len(tile) == planes + 2 * plane_words * 64
    for row in range(32):
        real = row < rows
        at = 32 + row
        floats = tile[: 6 * 64].view("<f4")
        assert floats[row] == (matrix.scales[at] if real else 0)
        assert floats[32 + row] == (matrix.sums[at] if real else 0)
        assert floats[64 + row] == (matrix.bias[at] if real else 0)
        for group in range(groups):
            expected = matrix.multipliers[at, group] if real else 1
            assert tile[multipliers + group * 32 + row] == expected
        for column in range(172):
            byte = 64 * (column // 4) + 4 * (row % 16) + column % 4
            low = tile[planes + byte] >> (4 * (row // 16)) & 15
            high = tile[planes + 64 * plane_words + byte] >> (4 * (row // 16)) & 15
            expected = int(matrix.weights[at, column]) + 128 if real else 128
            assert low + 16 * high == expected
    assert not tile[multipliers + 3 * 32 : planes].any()


def test_weight_sums_are_rounded_once_from_binary64():
    matrix = tiny.random_matrix(np.random.default_rng(4), 50, 132, Precision(4, 4, grouped=True))
    for row in range(50):
        total = sum(
            int(matrix.multipliers[row, column // 64]) * int(matrix.weights[row, column])
            for column in range(132)
        )
        assert matrix.sums[row] == F32(float(matrix.scales[row]) * total)


@pytest.mark.parametrize("streams", [1, 3, 16])
def test_tiles_are_dealt_to_streams_in_turn(streams):
    tiles = np.repeat(np.arange(1, 12, dtype=np.uint8)[:, None], 64, axis=1)
    dealt = layout.deal(tiles, streams)
    rounds = -(-11 // streams)
    assert dealt.shape == (streams, rounds * 64)
    for stream in range(streams):
        for index in range(rounds):
            tile = index * streams + stream
            assert (dealt[stream, 64 * index] == (tile + 1 if tile < 11 else 0)).all()
    assert (layout.gather(list(dealt), 0, 11, 64) == tiles).all()


def test_gate_and_up_tiles_alternate():
    gate, up = np.zeros((2, 64), np.uint8), np.ones((2, 64), np.uint8)
    assert layout.interleave(gate, up)[:, 0].tolist() == [0, 1, 0, 1]


def test_matrices_behind_an_arena_are_refused():
    with pytest.raises(ValueError, match="behind its arena"):
        layout.gather([np.zeros(64, np.uint8)], 0, 2, 64)


@pytest.mark.parametrize("streams", [1, 4, 16])
@pytest.mark.parametrize("name", tiny.SPECS)
def test_model_buffers_round_trip(name, streams):
    weights, _ = tiny.build(tiny.SPECS[name], 5)
    model, arenas = buffers.write_model(weights, streams)
    assert len(model) % 4096 == 0 and arenas.shape[1] % 4096 == 0
    assert buffers.weight_streams(model) == streams == len(arenas)
    assert equal(buffers.read_model(model, list(arenas)), weights)


def test_damaged_model_buffers_are_refused():
    weights, _ = tiny.build(tiny.SPECS["plain"])
    model, arenas = buffers.write_model(weights, 2)
    for field, message in ((0, "not a model"), (1, "version"), (15, "streams"), (18, "outside")):
        bad = model.copy()
        bad.view("<u4")[field] = 99999
        with pytest.raises(buffers.BadModel, match=message):
            buffers.read_model(bad, list(arenas))


def test_packed_files_round_trip_and_suit_the_safetensors_library(tmp_path):
    original = tiny.make("odd", streams=3, seed=9)
    path = tmp_path / "odd.safetensors"
    packed.save(path, original)
    again = packed.load(path)
    assert equal(again.weights(), original.weights())
    assert (again.embedding == original.embedding).all()
    assert again.tokenizer == original.tokenizer == packed.NO_TOKENIZER
    assert json.loads(again.metadata["config"])["hidden"] == 64
    tensors = safetensors.numpy.load_file(path)
    assert sorted(tensors) == [
        "arena.00", "arena.01", "arena.02", "embedding", "model", "tokenizer"
    ]
    assert (tensors["arena.02"] == original.arenas[2]).all()
    assert tensors["embedding"].dtype == np.float32


def test_packed_files_are_reproducible(tmp_path):
    for name in ("a", "b"):
        packed.save(tmp_path / name, tiny.make("w4a8", streams=5, seed=2))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_packed_files_are_refused(tmp_path):
    path = tmp_path / "plain.safetensors"
    packed.save(path, tiny.make("plain"))
    whole = path.read_bytes()
    for bad, message in (
        (whole[:-1], "outside the file"),
        (whole[:5], "shorter"),
        (whole[:100], "behind the file"),
        (whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:], "damaged"),
        (whole.replace(b'"contract_version":"1"', b'"contract_version":"2"'), "version"),
    ):
        path.write_bytes(bad)
        with pytest.raises(packed.BadPacked, match=message):
            packed.load(path)
