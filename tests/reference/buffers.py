"""The model buffer of docs/launch.md together with the arenas: to and from plain arrays.

`read_model` and `write_model` are inverses up to padding. Offsets count 64-byte words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from . import layout
from .fields import CONTRACT_VERSION, FIELDS_PER_WORD, MODEL_MAGIC, LayerField, ModelField
from .layout import BUFFER, WORD, Bytes, Matrix, Precision, TileShape, divide_up, float_words
from .numerics import F32, Floats, flush


class BadModel(ValueError):
    """A model buffer that is not one, or does not fit its arenas."""


@dataclass(frozen=True)
class Shape:
    """The dimensions in the model header."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rms_eps: np.float32
    inv_sqrt_head_dim: np.float32
    hadamard_block: int
    hadamard_scale: np.float32
    probability_bits: int

    @property
    def attention(self) -> int:
        return self.heads * self.head_dim

    @property
    def qkv(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


@dataclass(frozen=True)
class Layer:
    qkv: Matrix  # rows q, k, v
    o: Matrix
    gate: Matrix
    up: Matrix
    down: Matrix
    attention_norm: Floats
    ffn_norm: Floats
    q_norm: Floats | None = None
    k_norm: Floats | None = None


@dataclass(frozen=True)
class Weights:
    """Everything the kernels know about a model."""

    shape: Shape
    layers: Sequence[Layer]
    final_norm: Floats
    lm_head: Matrix
    cos: Floats  # [context][head_dim / 2]
    sin: Floats


_FLOATS = {"rms_eps", "inv_sqrt_head_dim", "hadamard_scale"}


def header_shape(model: Bytes) -> Shape:
    words = model.view("<u4")
    values = {}
    for field in fields(Shape):
        index = ModelField[field.name]
        is_float = field.name in _FLOATS
        values[field.name] = words.view("<f4")[index] if is_float else int(words[index])
    return Shape(**values)


def weight_streams(model: Bytes) -> int:
    return int(model.view("<u4")[ModelField.weight_streams])


def read_model(model: Bytes, arenas: Sequence[Bytes]) -> Weights:
    words = model.view("<u4")
    if len(words) < ModelField.fields or words[ModelField.magic] != MODEL_MAGIC:
        raise BadModel("not a model buffer")
    if words[ModelField.version] != CONTRACT_VERSION:
        raise BadModel(f"contract version {words[ModelField.version]}")
    if words[ModelField.weight_streams] != len(arenas):
        raise BadModel(f"{words[ModelField.weight_streams]} streams, {len(arenas)} arenas")
    if len({len(arena) for arena in arenas}) != 1:
        raise BadModel("arenas differ in size")
    shape = header_shape(model)

    def floats(word: int, count: int) -> Floats:
        if word * FIELDS_PER_WORD + count > len(words):
            raise BadModel(f"floats at word {word} lie outside the model buffer")
        return flush(words.view("<f4")[word * FIELDS_PER_WORD :][:count])

    def tiles(word: int, count: int, inputs: int, precision: Precision) -> Bytes:
        return layout.gather(arenas, int(word), count, TileShape(inputs, precision).bytes)

    def matrix(word: int, outputs: int, inputs: int, bits: int) -> Matrix:
        precision = Precision.decode(int(bits))
        stored = tiles(word, divide_up(outputs, layout.TILE_ROWS), inputs, precision)
        return layout.decode_tiles(stored, outputs, inputs, precision)

    def layer(index: int) -> Layer:
        start = (int(words[ModelField.layer_table]) + index) * FIELDS_PER_WORD
        record = words[start : start + LayerField.fields]

        def norm(field: LayerField, count: int) -> Floats:
            return floats(int(record[field]), count)

        def head_norm(field: LayerField) -> Floats | None:
            return norm(field, shape.head_dim) if record[field] else None

        gate_up = Precision.decode(int(record[LayerField.gate_up_precision]))
        half = divide_up(shape.ffn, layout.TILE_ROWS)
        both = tiles(record[LayerField.gate_up], 2 * half, shape.hidden, gate_up)
        def linear(name: str, outputs: int, inputs: int) -> Matrix:
            at, bits = record[LayerField[name]], record[LayerField[f"{name}_precision"]]
            return matrix(at, outputs, inputs, bits)

        return Layer(
            linear("qkv", shape.qkv, shape.hidden),
            linear("o", shape.hidden, shape.attention),
            layout.decode_tiles(both[0::2], shape.ffn, shape.hidden, gate_up),
            layout.decode_tiles(both[1::2], shape.ffn, shape.hidden, gate_up),
            linear("down", shape.hidden, shape.ffn),
            norm(LayerField.attention_norm, shape.hidden),
            norm(LayerField.ffn_norm, shape.hidden),
            head_norm(LayerField.q_norm),
            head_norm(LayerField.k_norm),
        )

    row = float_words(shape.head_dim) * FIELDS_PER_WORD
    rope = floats(int(words[ModelField.rope]), shape.context * row).reshape(shape.context, row)
    half = shape.head_dim // 2
    return Weights(
        shape,
        [layer(index) for index in range(shape.layers)],
        floats(int(words[ModelField.final_norm]), shape.hidden),
        matrix(
            words[ModelField.lm_head],
            shape.vocab,
            shape.hidden,
            words[ModelField.lm_head_precision],
        ),
        rope[:, :half].copy(),
        rope[:, half : shape.head_dim].copy(),
    )


class _Sections:
    """Appends parts that start on a word and remembers where."""

    def __init__(self, start: int = 0):
        self.parts: list[np.ndarray] = []
        self.word = start

    def append(self, part: np.ndarray) -> int:
        """part: [..., bytes]; returns the word it starts at."""
        at = self.word
        size = divide_up(part.shape[-1], WORD) * WORD
        grown = [(0, 0)] * (part.ndim - 1) + [(0, size - part.shape[-1])]
        self.parts.append(np.pad(part, grown))
        self.word += size // WORD
        return at

    def floats(self, values: Floats) -> int:
        return self.append(np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(-1))


def _whole_buffer(parts: Sequence[np.ndarray]) -> Bytes:
    joined = np.concatenate(parts, axis=-1)
    grown = [(0, 0)] * (joined.ndim - 1) + [(0, -joined.shape[-1] % BUFFER)]
    return np.pad(joined, grown)


def write_model(weights: Weights, streams: int) -> tuple[Bytes, Bytes]:
    """The model buffer and the arenas [streams][bytes]."""
    shape = weights.shape
    arenas = _Sections()

    def place(tiles: Bytes) -> int:
        return arenas.append(layout.deal(tiles, streams))

    records = np.zeros((shape.layers, LayerField.fields), "<u4")
    for record, layer in zip(records, weights.layers):
        record[LayerField.qkv] = place(layout.encode_tiles(layer.qkv))
        record[LayerField.o] = place(layout.encode_tiles(layer.o))
        halves = layout.encode_tiles(layer.gate), layout.encode_tiles(layer.up)
        record[LayerField.gate_up] = place(layout.interleave(*halves))
        record[LayerField.down] = place(layout.encode_tiles(layer.down))
        record[LayerField.qkv_precision] = layer.qkv.precision.encode()
        record[LayerField.o_precision] = layer.o.precision.encode()
        record[LayerField.gate_up_precision] = layer.gate.precision.encode()
        record[LayerField.down_precision] = layer.down.precision.encode()
    lm_head = place(layout.encode_tiles(weights.lm_head))

    header_words = ModelField.fields // FIELDS_PER_WORD
    body = _Sections(header_words + shape.layers)
    for record, layer in zip(records, weights.layers):
        record[LayerField.attention_norm] = body.floats(layer.attention_norm)
        record[LayerField.ffn_norm] = body.floats(layer.ffn_norm)
        if layer.q_norm is not None and layer.k_norm is not None:
            record[LayerField.q_norm] = body.floats(layer.q_norm)
            record[LayerField.k_norm] = body.floats(layer.k_norm)
    final_norm = body.floats(weights.final_norm)
    row = float_words(shape.head_dim) * FIELDS_PER_WORD
    rope = np.zeros((shape.context, row), F32)
    rope[:, : shape.head_dim] = np.concatenate((weights.cos, weights.sin), axis=1)
    rope_at = body.floats(rope)

    header = np.zeros(ModelField.fields, "<u4")
    for field in fields(Shape):
        target = header.view("<f4") if field.name in _FLOATS else header
        target[ModelField[field.name]] = getattr(shape, field.name)
    header[ModelField.magic] = MODEL_MAGIC
    header[ModelField.version] = CONTRACT_VERSION
    header[ModelField.weight_streams] = streams
    header[ModelField.rope] = rope_at
    header[ModelField.layer_table] = header_words
    header[ModelField.final_norm] = final_norm
    header[ModelField.lm_head] = lm_head
    header[ModelField.lm_head_precision] = weights.lm_head.precision.encode()
    header[ModelField.words] = divide_up(body.word * WORD, BUFFER) * BUFFER // WORD
    parts = [header.view(np.uint8), records.view(np.uint8).reshape(-1), *body.parts]
    return _whole_buffer(parts), _whole_buffer(arenas.parts)
