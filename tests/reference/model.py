"""docs/numerics.md, sections 4, 6 and 7: the model as one function over rows.

    model = Model(weights)
    residual = model.run(inputs, sequences, positions, cache)
    logits = model.logits(model.final_norm(residual))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import numerics as nm
from .attention import attend, rope
from .buffers import Weights
from .fields import NO_ID, TOP_LOGITS
from .kv import Cache, Ints, KeysValues, PageLayout, PlainCache
from .layout import Matrix
from .numerics import F32, Floats, quiet

_EXACT = 1 << 24
_MOST_BLOCKS = 4


class Linear:
    """Section 4. The integer product uses BLAS where every partial sum, in any order, is exact.

    In float32 that holds over blocks of inputs in which L * sum |m w| < 2^24 for every row; if
    more than a few blocks were needed, float64 is used, which is exact up to the maxima:
    255 * 63 * 128 * 16384 < 2^36 < 2^53.
    """

    def __init__(self, matrix: Matrix):
        self.precision = matrix.precision
        self.has_bias = matrix.precision.bias
        self.scales, self.sums, self.bias = matrix.scales, matrix.sums, matrix.bias
        integers = matrix.integers()
        self._blocks = _exact_blocks(integers, self.precision.levels)
        self._weights = integers.astype(F32 if self._blocks else np.float64)

    def accumulate(self, q: Floats) -> np.ndarray:
        """The exact integers acc, [rows][outputs], in float32 or float64."""
        if not self._blocks:
            return q.astype(np.float64) @ self._weights.T
        parts = [q[:, b] @ self._weights[:, b].T for b in self._blocks]
        return parts[0] if len(parts) == 1 else np.sum(parts, axis=0, dtype=np.float64)

    def __call__(self, q: Floats, s: Floats, z: Floats) -> Floats:
        acc = (self.accumulate(q) + 0.0).astype(F32)  # the integer 0 is +0
        y = nm.mul(acc, nm.mul(s[:, None], self.scales))
        y = nm.add(y, nm.mul(z[:, None], self.sums))
        return nm.add(y, self.bias) if self.has_bias else y


def _exact_blocks(integers: np.ndarray, levels: int) -> list[slice]:
    inputs = integers.shape[1]
    for count in range(1, _MOST_BLOCKS + 1):
        size = -(-inputs // count)
        blocks = [slice(at, at + size) for at in range(0, inputs, size)]
        sums = (np.abs(integers[:, b]).sum(axis=1, dtype=np.int64).max() for b in blocks)
        if max(sums) * levels < _EXACT:
            return blocks
    return []


def apply(h: Floats, *linears: Linear) -> list[Floats]:
    """Quantises h once for linears of one matrix."""
    p = linears[0].precision
    quantized = nm.quantize_asymmetric(h, p.levels, p.clip, p.symmetric)
    return [linear(*quantized) for linear in linears]


@dataclass(frozen=True)
class RowResults:
    """Section 7, for a batch of rows. `top_logits` descend; missing ones are -inf and NO_ID."""

    argmax: np.ndarray
    maximum: Floats
    log_sum_exp: Floats
    top_logits: Floats
    top_ids: np.ndarray


class Model:
    def __init__(self, weights: Weights):
        self.shape = weights.shape
        self.weights = weights
        self._layers = [
            {
                name: Linear(getattr(layer, name))
                for name in ("qkv", "o", "gate", "up", "down")
            }
            for layer in weights.layers
        ]
        self._lm_head = Linear(weights.lm_head)

    def new_cache(self) -> PlainCache:
        s = self.shape
        return PlainCache(PageLayout(s.layers, s.kv_heads, s.head_dim))

    @quiet
    def run(
        self,
        inputs: Floats,
        sequences: Ints,
        positions: Ints,
        cache: Cache,
        layer_begin: int = 0,
        layer_end: int | None = None,
    ) -> Floats:
        """Residuals after `layer_end`. An empty range of layers hands the inputs back untouched."""
        layer_end = self.shape.layers if layer_end is None else layer_end
        sequences, positions = np.asarray(sequences), np.asarray(positions)
        x = np.asarray(inputs, F32)
        for index in range(layer_begin, layer_end):
            x = self._layer(index, nm.flush(x), sequences, positions, cache)
        return x

    def _layer(
        self, index: int, x: Floats, sequences: Ints, positions: Ints, cache: Cache
    ) -> Floats:
        shape, weights = self.shape, self.weights.layers[index]
        linear = self._layers[index]
        h = nm.rmsnorm(x, weights.attention_norm, shape.rms_eps)
        (qkv,) = apply(h, linear["qkv"])
        o = self._attention(index, qkv, sequences, positions, cache)
        x = nm.add(x, apply(o, linear["o"])[0])
        h = nm.rmsnorm(x, weights.ffn_norm, shape.rms_eps)
        gate, up = apply(h, linear["gate"], linear["up"])
        y = nm.mul(nm.silu(gate), up)
        if shape.hadamard_block:
            y = nm.hadamard(y, shape.hadamard_block, shape.hadamard_scale)
        return nm.add(x, apply(y, linear["down"])[0])

    def _attention(
        self, index: int, qkv: Floats, sequences: Ints, positions: Ints, cache: Cache
    ) -> Floats:
        shape, weights = self.shape, self.weights.layers[index]
        qkv = qkv.reshape(len(qkv), -1, shape.head_dim)
        q, k, v = np.split(qkv, (shape.heads, shape.heads + shape.kv_heads), axis=1)
        if weights.q_norm is not None and weights.k_norm is not None:
            q = nm.rmsnorm(q, weights.q_norm, shape.rms_eps)
            k = nm.rmsnorm(k, weights.k_norm, shape.rms_eps)
        cos, sin = self.weights.cos[positions], self.weights.sin[positions]
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        k8, key_scales = nm.quantize_symmetric(k)
        v8, value_scales = nm.quantize_symmetric(v)
        members = [(int(s), np.flatnonzero(sequences == s)) for s in np.unique(sequences)]
        for sequence, rows in members:
            tokens = KeysValues(
                k8[rows].transpose(1, 0, 2),
                key_scales[rows].T,
                v8[rows].transpose(1, 0, 2),
                value_scales[rows].T,
            )
            cache.write(index, sequence, positions[rows], tokens)
        out = np.empty_like(q)
        for sequence, rows in members:
            context = cache.read(index, sequence, int(positions[rows].max()) + 1)
            out[rows] = attend(
                q[rows],
                positions[rows],
                context,
                shape.inv_sqrt_head_dim,
                shape.probability_bits,
            )
        return out.reshape(len(q), -1)

    @quiet
    def final_norm(self, x: Floats) -> Floats:
        return nm.rmsnorm(x, self.weights.final_norm, self.shape.rms_eps)

    @quiet
    def logits(self, h: Floats) -> Floats:
        """h: after the final norm."""
        return apply(h, self._lm_head)[0]


@quiet
def log_sum_exp(logits: Floats) -> tuple[Floats, Floats]:
    """m and lse of section 7."""
    m = nm.maximum(logits) + nm.ZERO
    return m, nm.add(m, nm.log(nm.vsum(nm.exp(logits - m[:, None]))))


@quiet
def target_logprob(logits: Floats, lse: Floats, targets: Ints) -> Floats:
    return nm.sub(logits[np.arange(len(logits)), targets], lse)


@quiet
def row_results(logits: Floats) -> RowResults:
    m, lse = log_sum_exp(logits)
    top_logits = np.full((len(logits), TOP_LOGITS), -np.inf, F32)
    top_ids = np.full((len(logits), TOP_LOGITS), NO_ID, np.uint32)
    for row, values in enumerate(logits):
        values = np.where(np.isnan(values), F32(-np.inf), values)
        count = min(TOP_LOGITS, len(values))
        floor = np.partition(values, -count)[-count]
        ids = np.flatnonzero((values >= floor) & (values > -np.inf))
        ids = ids[np.argsort(-values[ids], kind="stable")][:TOP_LOGITS]  # ids ascend among equals
        top_logits[row, : len(ids)] = values[ids]
        top_ids[row, : len(ids)] = ids
    argmax = np.where(top_ids[:, 0] == NO_ID, 0, top_ids[:, 0]).astype(np.uint32)
    return RowResults(argmax, m, lse, top_logits, top_ids)


def generate(
    model: Model, embedding: Floats, prompts: Sequence[Sequence[int]], count: int, chunk: int = 256
) -> list[list[int]]:
    """Greedy: `count` ids after each prompt, all sequences decoded as one batch."""
    cache = model.new_cache()
    last = np.empty((len(prompts), model.shape.hidden), F32)
    for sequence, prompt in enumerate(prompts):
        for at in range(0, len(prompt), chunk):
            ids = np.asarray(prompt[at : at + chunk])
            where = np.arange(at, at + len(ids))
            residual = model.run(embedding[ids], np.full(len(ids), sequence), where, cache)
        last[sequence] = residual[-1]
    lengths = np.array([len(prompt) for prompt in prompts])
    out: list[list[int]] = [[] for _ in prompts]
    for step in range(count):
        ids = row_results(model.logits(model.final_norm(last))).argmax
        for ids_of, token in zip(out, ids):
            ids_of.append(int(token))
        if step + 1 < count:
            last = model.run(embedding[ids], np.arange(len(prompts)), lengths + step, cache)
    return out
