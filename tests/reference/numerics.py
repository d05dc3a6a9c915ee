"""The primitives of docs/numerics.md (sections 1, 2, 3, 6 and 8), vectorised over leading axes.

Every array is float32 and every operation is one NumPy operation, so each is rounded on its own.
NumPy keeps denormals; `mul`, `div`, `add` and `sub` flush them as section 1 says. Where a plain
operator is used instead, a comment says why no denormal can matter there. Operands are expected
flushed: whoever loads data from a buffer calls `flush`.
"""

import numpy as np
import numpy.typing as npt

F32 = np.float32
Floats = npt.NDArray[np.float32]

TINY = F32(2.0**-126)  # the smallest normal number
_ROUNDS_UP = 2.0**-126 - 2.0**-151  # products from here on round up to TINY with 24 bits

quiet = np.errstate(all="ignore")  # a decorator: rows that are not finite are allowed


def f32(hexadecimal: str) -> np.float32:
    value = float.fromhex(hexadecimal)
    assert float(F32(value)) == value, hexadecimal
    return F32(value)


# Section 8.
LOG2_E = f32("0x1.715476p+0")
LN2_HIGH, LN2_LOW = f32("0x1.63p-1"), f32("-0x1.bd0106p-13")
EXP_C6, EXP_C5 = f32("0x1.6d4364p-10"), f32("0x1.120ba6p-7")
EXP_C4, EXP_C3, EXP_C2 = f32("0x1.5554e8p-5"), f32("0x1.5554dcp-3"), f32("0x1p-1")
SQRT2 = f32("0x1.6a09e6p+0")
LOG_C9, LOG_C7 = f32("0x1.c71c72p-3"), f32("0x1.24924ap-2")
LOG_C5, LOG_C3 = f32("0x1.99999ap-2"), f32("0x1.555556p-1")
LN2 = f32("0x1.62e430p-1")
EXP_FLOOR = F32(-86)

ONE, ZERO = F32(1), F32(0)
PARTIALS = 64


# ---- Section 1: arithmetic -------------------------------------------------------------------


def flush(x: npt.ArrayLike) -> Floats:
    """Denormals become zeros of the same sign."""
    x = np.asarray(x, F32)
    tiny = np.abs(x) < TINY
    return np.where(tiny, np.copysign(ZERO, x), x) if tiny.any() else x


def add(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Sums are multiples of 2^-149, so below 2^-126 they are exact and never round up to it."""
    return flush(np.add(a, b, dtype=F32))


def sub(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    return flush(np.subtract(a, b, dtype=F32))


def mul(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    return _flush_rounded(np.multiply(a, b, dtype=F32), np.multiply, a, b)


def div(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    return _flush_rounded(np.divide(a, b, dtype=F32), np.divide, a, b)


def _flush_rounded(result: Floats, operation: np.ufunc, a, b) -> Floats:
    """Flushes as x86 does, which decides after rounding to 24 bits, whatever the exponent.

    Gradual underflow has fewer bits and so reaches TINY from a little further below. The binary64
    result tells them apart: products are exact in it, and no quotient of 24-bit numbers is nearer
    to the 25-bit threshold than binary64 resolves.
    """
    magnitude = np.abs(result)
    if not (magnitude <= TINY).any():
        return result
    tiny = magnitude < TINY
    edge = magnitude == TINY
    if edge.any():
        tiny |= edge & (np.abs(operation(a, b, dtype=np.float64)) < _ROUNDS_UP)
    return np.where(tiny, np.copysign(ZERO, result), result)


def quantize(v: Floats, lo: float, hi: float) -> Floats:
    """Integers as float32; NaN becomes lo."""
    return np.rint(np.minimum(np.fmax(v, F32(lo)), F32(hi)))


def minimum(x: Floats) -> Floats:
    return np.fmin.reduce(x, axis=-1, initial=F32(np.inf))


def maximum(x: Floats) -> Floats:
    return np.fmax.reduce(x, axis=-1, initial=F32(-np.inf))


def maximum_magnitude(x: Floats) -> Floats:
    return np.fmax.reduce(np.abs(x), axis=-1, initial=ZERO)


def vsum(x: Floats) -> Floats:
    """Sum over the last axis of terms that are not negative (squares and exponentials).

    Such terms are 0 or at least 2^-126, and so are their sums: nothing to flush. A short last
    group of 64 is padded with +0, which changes no partial sum, since none is ever -0.
    """
    *lead, n = x.shape
    whole = n - n % PARTIALS
    partial = np.zeros((*lead, PARTIALS), F32)
    for start in range(0, whole, PARTIALS):
        partial += x[..., start : start + PARTIALS]
    partial[..., : n - whole] += x[..., whole:]
    half = PARTIALS // 2
    while half:
        partial = partial[..., :half] + partial[..., half : 2 * half]
        half //= 2
    return partial[..., 0]


# ---- Section 2: elementary functions -----------------------------------------------------------


def exp(x: Floats) -> Floats:
    """For x <= 0; 0 if not x > -86.

    No flush is needed: the result is 0 or above 2^-125, and where an intermediate is denormal (x
    or r * r next to 0) it is added to something at least 2^60 times larger, which does not see it.
    """
    alive = x > EXP_FLOOR
    x = np.fmax(x, EXP_FLOOR)
    n = np.rint(x * LOG2_E)
    r = x
    r -= n * LN2_HIGH
    r -= n * LN2_LOW
    q = r * EXP_C6
    for c in (EXP_C5, EXP_C4, EXP_C3):
        q += c
        q *= r
    q += EXP_C2
    q *= r * r
    q += r
    q += ONE
    bits = q.view(np.int32)
    bits += n.astype(np.int32) << 23  # q is in [0.7, 1.5], the result is normal
    q *= alive
    return q


def log(x: Floats) -> Floats:
    """For finite x >= 1. Below that (a non-finite row) the fields of x are taken at their word:
    x = 0 has m = 1 and e = -127."""
    bits = np.ascontiguousarray(x, F32).view(np.int32)
    e = (bits >> 23) - 127
    m = ((bits & 0x7FFFFF) | 0x3F800000).view(F32)
    high = m > SQRT2
    m = np.where(high, m * F32(0.5), m)
    e = e + high
    s = (m - ONE) / (m + ONE)
    z = s * s
    q = (((LOG_C9 * z + LOG_C7) * z + LOG_C5) * z + LOG_C3) * z + F32(2)
    return e.astype(F32) * LN2 + q * s


def silu(x: Floats) -> Floats:
    e = exp(-np.abs(x))
    c = np.where(x < 0, e, ONE)
    return mul(x, c / (ONE + e))


def rmsnorm(x: Floats, gain: Floats, eps: np.float32) -> Floats:
    x = flush(x)
    count = F32(x.shape[-1])
    mean = div(vsum(mul(x, x)), count)
    r = div(ONE, np.sqrt(add(mean, eps)))
    return mul(mul(x, r[..., None]), gain)


# ---- Section 3: quantisation -------------------------------------------------------------------


def quantize_asymmetric(
    h: Floats, levels: int, clip: int = 0, symmetric: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Per vector (last axis): integers 0..levels as float32, scale s and offset z."""
    lo, hi = minimum(h), maximum(h)
    if symmetric:
        hi = np.where(-lo > hi, -lo, hi)
        lo = -hi
    fraction = F32((256 - clip) / 256)
    lo, hi = mul(lo, fraction), mul(hi, fraction)
    z = lo + ZERO
    s = div(sub(hi, lo), F32(levels))
    s = np.where(s > 0, s, ONE)
    inverse = div(ONE, s)
    q = quantize(mul(sub(h, z[..., None]), inverse[..., None]), 0, levels)
    return q, s, z


def quantize_symmetric(v: Floats) -> tuple[Floats, Floats]:
    """Per vector (last axis): integers -127..127 as float32 and scale s."""
    s = div(maximum_magnitude(v), F32(127))
    inverse = np.where(s > 0, div(ONE, s), ZERO)
    return quantize(mul(v, inverse[..., None]), -127, 127), s


# ---- Section 6: Hadamard -----------------------------------------------------------------------


def hadamard(y: Floats, block: int, scale: np.float32) -> Floats:
    """Walsh-Hadamard in blocks along the last axis, natural order."""
    shape = y.shape
    h = 1
    while h < block:
        pair = y.reshape(-1, 2, h)
        a, b = pair[:, 0], pair[:, 1]
        y = np.stack((add(a, b), sub(a, b)), axis=1)
        h *= 2
    return mul(y.reshape(shape), scale)
