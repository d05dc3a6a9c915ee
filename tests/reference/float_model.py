"""A Llama forward pass in plain float32 with BLAS: what quantisation is measured against.

No contract governs its last bits. It shares only the file readers with the quantised model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .buffers import Layer, Shape, Weights
from .layout import GROUP, Matrix, Precision, divide_up, make_matrix
from .numerics import F32, Floats, quiet

LOGIT_ROWS = 256  # logits are produced in blocks of rows, to bound memory


@dataclass(frozen=True)
class FloatLayer:
    qkv: Floats  # [q, k, v rows][hidden], half-split RoPE order
    o: Floats
    gate: Floats
    up: Floats
    down: Floats
    attention_norm: Floats
    ffn_norm: Floats
    qkv_bias: Floats | None = None
    q_norm: Floats | None = None
    k_norm: Floats | None = None


@dataclass(frozen=True)
class FloatWeights:
    shape: Shape
    layers: Sequence[FloatLayer]
    embedding: Floats
    final_norm: Floats
    lm_head: Floats
    cos: Floats
    sin: Floats


def dequantize(matrix: Matrix) -> Floats:
    return matrix.integers().astype(F32) * matrix.scales[:, None]


def from_quantized(weights: Weights, embedding: Floats) -> FloatWeights:
    """The same function without quantised activations, keys, values and probabilities."""

    def layer(source: Layer) -> FloatLayer:
        return FloatLayer(
            dequantize(source.qkv),
            dequantize(source.o),
            dequantize(source.gate),
            dequantize(source.up),
            dequantize(source.down),
            source.attention_norm,
            source.ffn_norm,
            source.qkv.bias if source.qkv.precision.bias else None,
            source.q_norm,
            source.k_norm,
        )

    return FloatWeights(
        weights.shape,
        [layer(source) for source in weights.layers],
        embedding,
        weights.final_norm,
        dequantize(weights.lm_head),
        weights.cos,
        weights.sin,
    )


def round_matrix(values: Floats, precision: Precision, bias: Floats | None = None) -> Matrix:
    """Round to nearest, symmetric: per channel, or with a multiplier per group of 64 inputs."""
    limit = (1 << (precision.weight_bits - 1)) - 1
    outputs, inputs = values.shape
    groups = divide_up(inputs, GROUP)
    padded = np.pad(values, [(0, 0), (0, groups * GROUP - inputs)])
    largest = np.abs(padded).reshape(outputs, groups, GROUP).max(axis=2)
    multipliers = np.ones((outputs, groups), np.uint8)
    scales = largest.max(axis=1) / limit
    if precision.grouped:
        scales /= 63
        steps = np.ceil(largest / np.maximum(limit * scales, 1e-30)[:, None])
        multipliers = np.clip(steps, 1, 63).astype(np.uint8)
    scales = np.where(scales > 0, scales, 1).astype(F32)
    step = np.repeat(scales[:, None] * multipliers, GROUP, axis=1)[:, :inputs]
    integers = np.clip(np.rint(values / step), -limit, limit).astype(np.int8)
    return make_matrix(precision, integers, scales, multipliers, bias)


def round_weights(
    source: FloatWeights, precision: Precision, lm_head: Precision, probability_bits: int = 8
) -> Weights:
    """The plainest quantised model of a float one: no rotation, no calibration."""

    def layer(float_layer: FloatLayer) -> Layer:
        bias = float_layer.qkv_bias
        qkv = replace(precision, bias=bias is not None)
        return Layer(
            round_matrix(float_layer.qkv, qkv, bias),
            round_matrix(float_layer.o, precision),
            round_matrix(float_layer.gate, precision),
            round_matrix(float_layer.up, precision),
            round_matrix(float_layer.down, precision),
            float_layer.attention_norm,
            float_layer.ffn_norm,
            float_layer.q_norm,
            float_layer.k_norm,
        )

    return Weights(
        replace(source.shape, probability_bits=probability_bits),
        [layer(float_layer) for float_layer in source.layers],
        source.final_norm,
        round_matrix(source.lm_head, lm_head),
        source.cos,
        source.sin,
    )


class FloatModel:
    def __init__(self, weights: FloatWeights):
        self.weights = weights

    @quiet
    def hidden(self, ids: Sequence[int]) -> Floats:
        """Final-norm hidden states of one text, [tokens][hidden]."""
        w = self.weights
        x = w.embedding[np.asarray(ids)]
        for layer in w.layers:
            x = x + self._attention(layer, self._norm(x, layer.attention_norm)) @ layer.o.T
            h = self._norm(x, layer.ffn_norm)
            gate = h @ layer.gate.T
            y = gate / (1 + np.exp(-gate)) * (h @ layer.up.T)
            x = x + self._hadamard(y) @ layer.down.T
        return self._norm(x, w.final_norm)

    def logits(self, ids: Sequence[int]) -> Floats:
        return self.hidden(ids) @ self.weights.lm_head.T

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probability of ids[1:], each after what stands before it."""
        targets = np.asarray(ids)[1:]
        hidden = self.hidden(ids)[:-1]
        parts = []
        for block in blocks(len(targets)):
            logits = (hidden[block] @ self.weights.lm_head.T).astype(np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            at = logits[np.arange(len(logits)), targets[block]]
            parts.append(at - np.log(np.exp(logits).sum(axis=1)))
        return np.concatenate(parts)

    def _norm(self, x: Floats, gain: Floats) -> Floats:
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + self.weights.shape.rms_eps) * gain

    def _attention(self, layer: FloatLayer, h: Floats) -> Floats:
        shape = self.weights.shape
        qkv = h @ layer.qkv.T
        if layer.qkv_bias is not None:
            qkv += layer.qkv_bias
        heads = qkv.reshape(len(h), -1, shape.head_dim).transpose(1, 0, 2)
        q, k, v = np.split(heads, (shape.heads, shape.heads + shape.kv_heads))
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        q, k = self._rope(q), self._rope(k)
        group = shape.heads // shape.kv_heads
        future = np.triu(np.ones((len(h), len(h)), bool), 1)
        out = np.empty_like(q)
        for head in range(shape.heads):
            scores = q[head] @ k[head // group].T * shape.inv_sqrt_head_dim
            scores[future] = -np.inf
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[head] = scores @ v[head // group] / scores.sum(axis=1, keepdims=True)
        return out.transpose(1, 0, 2).reshape(len(h), -1)

    def _rope(self, x: Floats) -> Floats:
        tokens, half = x.shape[1], x.shape[2] // 2
        c, s = self.weights.cos[:tokens], self.weights.sin[:tokens]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate((a * c - b * s, b * c + a * s), axis=-1)

    def _hadamard(self, y: Floats) -> Floats:
        shape = self.weights.shape
        if not shape.hadamard_block:
            return y
        matrix = np.ones((1, 1), F32)
        while len(matrix) < shape.hadamard_block:
            matrix = np.block([[matrix, matrix], [matrix, -matrix]])
        split = y.reshape(len(y), -1, shape.hadamard_block)
        return (split @ matrix * shape.hadamard_scale).reshape(y.shape)


def blocks(count: int) -> Iterator[slice]:
    return (slice(at, min(at + LOGIT_ROWS, count)) for at in range(0, count, LOGIT_ROWS))


# ---- GGUF --------------------------------------------------------------------------------------


def rope_order(rows: Floats, heads: int) -> Floats:
    """GGUF files of the `llama` architecture pair neighbours; here element i of a head is
    rotated with element i + head_dim / 2."""
    paired = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(rows.shape)


def load_gguf(path: Path | str, context: int | None = None) -> FloatWeights:
    """`context`: RoPE rows to compute, at most (and by default) what the file states."""
    from gguf import GGUFReader
    from gguf.quants import dequantize as decode

    reader = GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    architecture = reader.fields["general.architecture"].contents()

    def entry(name: str, default=None):
        found = reader.fields.get(f"{architecture}.{name}")
        if found is None and default is None:
            raise ValueError(f"{path}: no {architecture}.{name}")
        return default if found is None else found.contents()

    def tensor(name: str) -> Floats:
        found = tensors[name]
        return np.asarray(decode(found.data, found.tensor_type), F32)

    def optional(name: str) -> Floats | None:
        return tensor(name) if name in tensors else None

    heads = entry("attention.head_count")
    kv_heads = entry("attention.head_count_kv", heads)
    embedding = tensor("token_embd.weight")
    vocab, hidden = embedding.shape
    head_dim = entry("attention.key_length", hidden // heads)
    limit = entry("context_length")
    context = min(context or limit, limit)

    def joined(index: int, kind: str) -> Floats | None:
        parts = [optional(f"blk.{index}.attn_{name}.{kind}") for name in "qkv"]
        if parts[0] is None:
            return None
        if architecture == "llama":
            parts[:2] = rope_order(parts[0], heads), rope_order(parts[1], kv_heads)
        return np.concatenate(parts)

    def layer(index: int) -> FloatLayer:
        prefix = f"blk.{index}"
        return FloatLayer(
            joined(index, "weight"),
            tensor(f"{prefix}.attn_output.weight"),
            tensor(f"{prefix}.ffn_gate.weight"),
            tensor(f"{prefix}.ffn_up.weight"),
            tensor(f"{prefix}.ffn_down.weight"),
            tensor(f"{prefix}.attn_norm.weight"),
            tensor(f"{prefix}.ffn_norm.weight"),
            joined(index, "bias"),
            optional(f"{prefix}.attn_q_norm.weight"),
            optional(f"{prefix}.attn_k_norm.weight"),
        )

    theta = entry("rope.freq_base", 10000.0)
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    factors = optional("rope_freqs.weight")
    if factors is not None:
        frequencies /= factors
    angles = np.arange(context)[:, None] * frequencies
    shape = Shape(
        entry("block_count"),
        hidden,
        heads,
        kv_heads,
        head_dim,
        entry("feed_forward_length"),
        vocab,
        context,
        F32(entry("attention.layer_norm_rms_epsilon")),
        F32(head_dim**-0.5),
        0,
        F32(1),
        8,
    )
    lm_head = optional("output.weight")
    return FloatWeights(
        shape,
        [layer(index) for index in range(shape.layers)],
        embedding,
        tensor("output_norm.weight"),
        embedding if lm_head is None else lm_head,
        np.cos(angles).astype(F32),
        np.sin(angles).astype(F32),
    )
