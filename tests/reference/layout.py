"""docs/weight-layout.md: quantised matrices and their bytes in the arenas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .numerics import F32, Floats, flush

Bytes = npt.NDArray[np.uint8]

WORD = 64  # bytes
TILE_ROWS = 32
GROUP = 64  # inputs that share a multiplier
BUFFER = 4096  # buffers are multiples of this many bytes


def divide_up(a: int, b: int) -> int:
    return -(-a // b)


def float_words(count: int) -> int:
    return divide_up(count, WORD // 4)


@dataclass(frozen=True)
class Precision:
    """Bits of a precision field: 0-3 weight planes, 4-7 activation planes, 8 grouped, 9 bias,
    10 symmetric, 16-23 clip."""

    weight_bits: int  # 4 or 8
    activation_bits: int  # 4 or 8
    grouped: bool = False
    bias: bool = False
    symmetric: bool = False  # the range of activations is as wide on both sides of 0
    clip: int = 0  # 256ths that are cut off that range

    @property
    def weight_planes(self) -> int:
        return self.weight_bits // 4

    @property
    def levels(self) -> int:
        return (1 << self.activation_bits) - 1

    def encode(self) -> int:
        planes = self.weight_planes | (self.activation_bits // 4) << 4
        return planes | self.grouped << 8 | self.bias << 9 | self.symmetric << 10 | self.clip << 16

    @staticmethod
    def decode(bits: int) -> "Precision":
        precision = Precision(
            4 * (bits & 15),
            4 * (bits >> 4 & 15),
            bool(bits >> 8 & 1),
            bool(bits >> 9 & 1),
            bool(bits >> 10 & 1),
            bits >> 16 & 255,
        )
        if not {precision.weight_bits, precision.activation_bits} <= {4, 8} or bits & ~0xFF07FF:
            raise ValueError(f"precision field {bits:#x} means nothing")
        return precision


@dataclass(frozen=True)
class Matrix:
    """One quantised linear layer (docs/numerics.md, section 4)."""

    precision: Precision
    weights: npt.NDArray[np.int8]  # [outputs][inputs]
    multipliers: npt.NDArray[np.uint8]  # [outputs][groups]; ones unless grouped
    scales: Floats  # [outputs]
    sums: Floats  # [outputs], the wsum of the page
    bias: Floats  # [outputs]; zeros without a bias

    @property
    def outputs(self) -> int:
        return self.weights.shape[0]

    @property
    def inputs(self) -> int:
        return self.weights.shape[1]

    def integers(self) -> npt.NDArray[np.int16]:
        """m_g * w_i; magnitudes up to 63 * 128."""
        spread = np.repeat(self.multipliers.astype(np.int16), GROUP, axis=1)[:, : self.inputs]
        return spread * self.weights

    def rows(self, index: slice | npt.NDArray[np.intp]) -> "Matrix":
        return Matrix(
            self.precision,
            self.weights[index],
            self.multipliers[index],
            self.scales[index],
            self.sums[index],
            self.bias[index],
        )


def make_matrix(
    precision: Precision,
    weights: npt.NDArray[np.int8],
    scales: Floats,
    multipliers: npt.NDArray[np.uint8] | None = None,
    bias: Floats | None = None,
) -> Matrix:
    """A matrix from its integers, with wsum as section 4 says."""
    outputs, inputs = weights.shape
    if multipliers is None:
        multipliers = np.ones((outputs, divide_up(inputs, GROUP)), np.uint8)
    assert precision.grouped or (multipliers == 1).all()
    assert precision.bias == (bias is not None)
    limit = 1 << (precision.weight_bits - 1)
    assert -limit <= weights.min() and weights.max() < limit
    if bias is None:
        bias = np.zeros(outputs, F32)
    matrix = Matrix(precision, weights, multipliers, scales, np.zeros(outputs, F32), bias)
    total = matrix.integers().sum(axis=1, dtype=np.int64)
    matrix.sums[:] = flush((scales.astype(np.float64) * total).astype(F32))
    return matrix


@dataclass(frozen=True)
class TileShape:
    """Byte offsets of the parts of a tile."""

    inputs: int
    precision: Precision

    @property
    def groups(self) -> int:
        return divide_up(self.inputs, GROUP)

    @property
    def bias(self) -> int:
        return 4 * WORD

    @property
    def multipliers(self) -> int:
        return self.bias + (2 * WORD if self.precision.bias else 0)

    @property
    def planes(self) -> int:
        words = divide_up(self.groups, 2) if self.precision.grouped else 0
        return self.multipliers + words * WORD

    @property
    def plane_bytes(self) -> int:
        return self.inputs // 4 * WORD

    @property
    def bytes(self) -> int:
        return self.planes + self.precision.weight_planes * self.plane_bytes


def encode_tiles(matrix: Matrix) -> Bytes:
    """[tiles][bytes of a tile]; the last tile is padded as the page says."""
    shape = TileShape(matrix.inputs, matrix.precision)
    tiles = divide_up(matrix.outputs, TILE_ROWS)
    grown = tiles * TILE_ROWS - matrix.outputs

    def pad(a, value=0):
        width = [(0, grown)] + [(0, 0)] * (a.ndim - 1)
        padded = np.pad(a, width, constant_values=value)
        return padded.reshape(tiles, TILE_ROWS, *a.shape[1:])

    def floats(a):
        return np.ascontiguousarray(pad(a), "<f4").view(np.uint8)

    out = np.zeros((tiles, shape.bytes), np.uint8)
    out[:, : 2 * WORD] = floats(matrix.scales)
    out[:, 2 * WORD : 4 * WORD] = floats(matrix.sums)
    if matrix.precision.bias:
        out[:, shape.bias : shape.multipliers] = floats(matrix.bias)
    if matrix.precision.grouped:
        by_group = pad(matrix.multipliers, 1).transpose(0, 2, 1).reshape(tiles, -1)
        out[:, shape.multipliers : shape.multipliers + by_group.shape[1]] = by_group
    offset = 8 if matrix.precision.weight_bits == 4 else 128
    unsigned = (pad(matrix.weights).astype(np.int16) + offset).astype(np.uint8)
    for plane in range(matrix.precision.weight_planes):
        nibbles = unsigned >> (4 * plane) & 15
        low, high = nibbles[:, :16], nibbles[:, 16:]
        packed = (low | high << 4).reshape(tiles, 16, matrix.inputs // 4, 4)
        start = shape.planes + plane * shape.plane_bytes
        out[:, start : start + shape.plane_bytes] = packed.transpose(0, 2, 1, 3).reshape(tiles, -1)
    return out


def decode_tiles(tiles: Bytes, outputs: int, inputs: int, precision: Precision) -> Matrix:
    shape = TileShape(inputs, precision)
    count = len(tiles)

    def floats(start):
        part = np.ascontiguousarray(tiles[:, start : start + 2 * WORD])
        return flush(part.view("<f4").reshape(-1)[:outputs])

    unsigned = np.zeros((count, TILE_ROWS, inputs), np.uint8)
    for plane in range(precision.weight_planes):
        start = shape.planes + plane * shape.plane_bytes
        packed = tiles[:, start : start + shape.plane_bytes].reshape(count, inputs // 4, 16, 4)
        packed = packed.transpose(0, 2, 1, 3).reshape(count, 16, inputs)
        unsigned[:, :16] |= (packed & 15) << (4 * plane)
        unsigned[:, 16:] |= (packed >> 4) << (4 * plane)
    offset = 8 if precision.weight_bits == 4 else 128
    weights = (unsigned.reshape(-1, inputs)[:outputs].astype(np.int16) - offset).astype(np.int8)
    multipliers = np.ones((outputs, shape.groups), np.uint8)
    if precision.grouped:
        size = shape.groups * TILE_ROWS
        stored = tiles[:, shape.multipliers : shape.multipliers + size]
        stored = stored.reshape(count, shape.groups, TILE_ROWS).transpose(0, 2, 1)
        multipliers = stored.reshape(-1, shape.groups)[:outputs].copy()
    bias = floats(shape.bias) if precision.bias else np.zeros(outputs, F32)
    return Matrix(precision, weights, multipliers, floats(0), floats(2 * WORD), bias)


def interleave(gate: Bytes, up: Bytes) -> Bytes:
    """Tiles of gate_up: 2i is gate's i-th, 2i + 1 up's i-th."""
    return np.stack((gate, up), axis=1).reshape(2 * len(gate), -1)


def deal(tiles: Bytes, streams: int) -> Bytes:
    """[streams][bytes of this matrix in a stream]: tile t is the (t / S)-th in stream t mod S."""
    rounds = divide_up(len(tiles), streams)
    room = np.zeros((rounds * streams, tiles.shape[1]), np.uint8)
    room[: len(tiles)] = tiles
    return room.reshape(rounds, streams, -1).transpose(1, 0, 2).reshape(streams, -1)


def gather(arenas: Sequence[Bytes], word: int, count: int, tile_bytes: int) -> Bytes:
    """The tiles of the matrix at `word`; the inverse of `deal`."""
    rounds = divide_up(count, len(arenas))
    start, end = word * WORD, word * WORD + rounds * tile_bytes
    if any(end > len(arena) for arena in arenas):
        raise ValueError(f"matrix at word {word} ends at byte {end}, behind its arena")
    parts = [arena[start:end].reshape(rounds, tile_bytes) for arena in arenas]
    return np.stack(parts, axis=1).reshape(rounds * len(arenas), tile_bytes)[:count]
