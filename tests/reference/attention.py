"""docs/numerics.md, section 5."""

import numpy as np

from .kv import Ints, KeysValues
from .numerics import (
    F32,
    ONE,
    ZERO,
    Floats,
    add,
    div,
    exp,
    flush,
    maximum,
    mul,
    quantize_symmetric,
    sub,
)

_EXACT = 1 << 24  # integers that float32 holds, and float32 sums of which are exact
_BLOCK_SCORES = 1 << 18  # elements of the score blocks, to stay in cache
_SAFE = 2.0**-120


def rope(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """x: [rows][heads][head_dim]; cos, sin: [rows][head_dim / 2] of the rows' positions."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    c, s = cos[:, None], sin[:, None]
    return np.concatenate((sub(mul(a, c), mul(b, s)), add(mul(b, c), mul(a, s))), axis=-1)


def attend(
    q: Floats,
    positions: Ints,
    cache: KeysValues,
    inv_sqrt_head_dim: np.float32,
    probability_bits: int,
) -> Floats:
    """Steps 4 to 6 for rows of one sequence. q: [rows][heads][head_dim] after RoPE; positions
    ascend; the cache holds 0..positions[-1] at least. Returns [rows][heads][head_dim]."""
    rows, heads, size = q.shape
    kv_heads = len(cache.keys)
    q8, scale = quantize_symmetric(q)
    f = mul(scale, inv_sqrt_head_dim)
    q8 = q8.reshape(rows, kv_heads, -1, size)
    f = f.reshape(rows, kv_heads, -1)
    out = np.empty_like(q8)
    step = max(1, _BLOCK_SCORES // (heads * (int(positions[-1]) + 1)))
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        visible = int(positions[block][-1]) + 1
        part = KeysValues(
            cache.keys[:, :visible],
            cache.key_scales[:, :visible],
            cache.values[:, :visible],
            cache.value_scales[:, :visible],
        )
        out[block] = _attend_block(q8[block], f[block], positions[block], part, probability_bits)
    return out.reshape(rows, heads, size)


def _attend_block(
    q8: Floats, f: Floats, positions: Ints, cache: KeysValues, probability_bits: int
) -> Floats:
    """q8: [rows][kv_heads][group][head_dim], f: [rows][kv_heads][group]. No row sees past the
    last token of the cache. Inside, arrays are [kv_heads][rows * group][tokens]."""
    rows, kv_heads, group, size = q8.shape
    tokens = cache.keys.shape[1]
    levels = (1 << probability_bits) - 1
    q8 = q8.transpose(1, 0, 2, 3).reshape(kv_heads, rows * group, size)
    f = f.transpose(1, 0, 2).reshape(kv_heads, rows * group, 1)
    assert 127 * 127 * size < _EXACT

    # Step 5. A denormal a_t, or a difference a_t - m that is one, acts as zero in exp anyway.
    scores = np.matmul(q8, cache.keys.transpose(0, 2, 1))
    scales = f * cache.key_scales[:, None]
    if not _smallest(f) * _smallest(cache.key_scales) > _SAFE:
        scales = mul(f, cache.key_scales[:, None])
    scores += ZERO  # the integer 0 is +0
    scores *= scales
    hidden = None
    if tokens - 1 > positions[0]:
        hidden = np.repeat(np.arange(tokens) > positions[:, None], group, axis=0)
        np.copyto(scores, F32(-np.inf), where=hidden)

    # Step 6. S over the visible prefix. The numerator needs no flush: what is denormal in it
    # is far below 1/2 after multiplying by P.
    prefix = np.fmax.accumulate(np.fmax(cache.value_scales, ZERO), axis=1)
    largest = prefix[:, positions]
    inverse = np.where(largest > 0, div(ONE, largest), ZERO)
    ratio = flush(cache.value_scales)[:, None] * inverse[..., None]
    scores -= maximum(scores)[..., None]
    e = exp(scores)
    denominator = _probabilities(e, levels)
    denominators = denominator.sum(axis=-1, dtype=F32 if levels * tokens < _EXACT else np.float64)
    e = e.reshape(kv_heads, rows, group, tokens)
    e *= ratio[:, :, None]
    numerator = _probabilities(e.reshape(kv_heads, rows * group, tokens), levels)
    sums = _weighted_sum(numerator, cache.values, levels)
    largest = np.repeat(largest, group, axis=1)
    out = mul(sums, div(largest, denominators.astype(F32))[..., None])
    return out.reshape(kv_heads, rows, group, size).transpose(1, 0, 2, 3)


def _smallest(x: Floats) -> float:
    """Of the magnitudes that are not zero."""
    x = np.abs(x)
    return float(np.min(x, initial=np.inf, where=x > 0))


def _probabilities(e: Floats, levels: int) -> Floats:
    """quantize(e * levels, 0, levels); e is neither negative nor, except from an infinite or NaN
    ratio, NaN."""
    p = e * F32(levels)
    np.fmax(p, ZERO, out=p)
    np.minimum(p, F32(levels), out=p)
    return np.rint(p, out=p)


def _weighted_sum(numerator: Floats, values: Floats, levels: int) -> Floats:
    """float(sum_t n_t v_t), the integer 0 being +0. Integers of 16 bits go byte by byte; the whole
    sum, below 65535 * 127 * 131072 < 2^41, is exact in binary64."""
    if levels <= 255:
        total = _byte_sum(numerator, values)
    else:
        high = np.floor(numerator * F32(2**-8))
        total = 256 * _byte_sum(high, values) + _byte_sum(numerator - 256 * high, values)
    return (total + 0.0).astype(F32)


def _byte_sum(numerator: Floats, values: Floats) -> np.ndarray:
    """sum_t n_t v_t of n in 0..255, exact: in float32 over blocks of tokens whose sums of
    magnitudes stay below 2^24, then in binary64."""
    block = _EXACT // (255 * 127)
    total = np.float64(0)
    for at in range(0, values.shape[1], block):
        part = slice(at, at + block)
        total = total + np.matmul(numerator[..., part], values[:, part])
    return total
