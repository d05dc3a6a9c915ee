"""Primitives against binary64 or exact fractions, and the fate of special values."""

from fractions import Fraction

import numpy as np
import pytest

from . import numerics as nm
from .numerics import F32

INF, NAN = F32(np.inf), F32(np.nan)


def floats(*values: float) -> nm.Floats:
    return np.array(values, F32)


def bits(x) -> np.ndarray:
    return np.ascontiguousarray(x, F32).view(np.uint32)


def sample(seed: int, *shape: int, scale: float = 1) -> nm.Floats:
    return (np.random.default_rng(seed).normal(0, 1, shape) * scale).astype(F32)


# ---- section 1 ---------------------------------------------------------------------------------


def test_flush_keeps_signs_and_leaves_normals_alone():
    x = floats(1e-39, -1e-39, 2.0**-126, -(2.0**-126), 0, -0.0, np.inf)
    expected = floats(0, -0.0, 2.0**-126, -(2.0**-126), 0, -0.0, np.inf)
    assert (bits(nm.flush(x)) == bits(expected)).all()


def rounded_to_24_bits(exact: Fraction) -> Fraction:
    """Nearest, ties to even, whatever the exponent; exact > 0 and near 2^-126."""
    exponent = -127 if exact < Fraction(1, 2**126) else -126
    unit = Fraction(2) ** (exponent - 23)
    return round(exact / unit) * unit  # Python rounds ties to even


@nm.quiet
@pytest.mark.parametrize("operation", ["mul", "div"])
def test_results_are_flushed_after_rounding_to_24_bits(operation):
    rng = np.random.default_rng(3)
    a = np.ldexp(rng.uniform(1, 2, 4000), rng.integers(-120, -1, 4000)).astype(F32)
    goal = 2.0**-126 * (1 + rng.integers(-4, 5, 4000) * 2.0**-25)
    b = (goal / a if operation == "mul" else a / goal).astype(F32)
    usable = np.isfinite(b) & (b >= nm.TINY)
    a, b = a[usable], b[usable]
    found = getattr(nm, operation)(a, b)
    seen = set()
    for x, y, result in zip(a.tolist(), b.tolist(), found.tolist()):
        exact = Fraction(x) * Fraction(y) if operation == "mul" else Fraction(x) / Fraction(y)
        value = rounded_to_24_bits(exact)
        expected = value if value >= Fraction(1, 2**126) else Fraction(0)
        assert Fraction(result) == expected
        seen.add((exact < Fraction(1, 2**126), expected > 0))
    # No quotient of 24-bit numbers comes close enough to 2^-126 from below to round up to it.
    rounded_up = {(True, True)} if operation == "mul" else set()
    assert seen == {(True, False), (False, True)} | rounded_up


def test_quantize_rounds_ties_to_even_saturates_and_sends_nan_down():
    v = floats(0.5, 1.5, 2.5, -3, 99, np.inf, -np.inf, np.nan)
    assert nm.quantize(v, 0, 15).tolist() == [0, 2, 2, 0, 15, 15, 0, 0]
    assert nm.quantize(floats(np.nan, -2.5, -500), -127, 127).tolist() == [-127, -2, -127]


def test_extrema_ignore_nan():
    x = np.array([[1, np.nan, -3], [np.nan, np.nan, np.nan]], F32)
    assert nm.minimum(x).tolist() == [-3, np.inf]
    assert nm.maximum(x).tolist() == [1, -np.inf]
    assert nm.maximum_magnitude(x).tolist() == [3, 0]


@pytest.mark.parametrize("size", [1, 8, 63, 64, 65, 172, 576])
def test_vsum_adds_in_the_order_of_the_page(size):
    x = np.abs(sample(size, size, scale=100))
    partial = [F32(0)] * 64
    for i, value in enumerate(x):
        partial[i % 64] = F32(partial[i % 64] + value)
    for h in (32, 16, 8, 4, 2, 1):
        for j in range(h):
            partial[j] = F32(partial[j] + partial[j + h])
    assert bits(nm.vsum(x[None]))[0] == bits(partial[0])
    assert partial[0] == pytest.approx(x.astype(np.float64).sum(), rel=1e-6)


# ---- section 2 ---------------------------------------------------------------------------------


def test_exp_is_within_its_bound():
    x = -np.linspace(0, 86, 1_000_001).astype(F32)[:-1]
    exact = np.exp(x.astype(np.float64))
    error = np.abs(nm.exp(x) - exact) / exact
    assert error.max() < 1.0e-7
    assert nm.exp(x).max() <= 1


def test_exp_at_its_ends():
    below, above = np.nextafter(F32(-86), INF), F32(-86)
    x = floats(0, -0.0, -1e-38, below, above, -1e30, -np.inf, np.nan)
    found = nm.exp(x)
    assert found[:3].tolist() == [1, 1, 1]
    assert found[3] > nm.TINY
    assert (bits(found[4:]) == 0).all()


def test_exp_by_hand():
    """One value, operation by operation in exact arithmetic with explicit rounding."""

    def round32(value: Fraction) -> Fraction:
        return Fraction(float(F32(float(value))))  # values here are exact in binary64

    def constant(text: str) -> Fraction:
        return Fraction(float.fromhex(text))

    x = Fraction(-2.75)
    n = round(round32(x * constant("0x1.715476p+0")))
    r = round32(x - n * constant("0x1.63p-1"))
    r = round32(r - round32(n * constant("-0x1.bd0106p-13")))
    q = constant("0x1.6d4364p-10")
    for text in ("0x1.120ba6p-7", "0x1.5554e8p-5", "0x1.5554dcp-3", "0x1p-1"):
        q = round32(round32(q * r) + constant(text))
    q = round32(round32(r * r) * q)
    q = round32(round32(q + r) + 1)
    assert Fraction(float(nm.exp(floats(-2.75))[0])) == q * Fraction(2) ** n


def test_log_is_within_its_bound():
    x = np.exp(np.linspace(0, 13, 1_000_001)).astype(F32)
    x = np.maximum(x, F32(1))
    assert np.abs(nm.log(x) - np.log(x.astype(np.float64))).max() < 1.1e-6
    assert nm.log(floats(1)).tolist() == [0]


@nm.quiet
def test_silu_is_close_and_saturates():
    x = np.linspace(-85, 85, 100_001).astype(F32)
    wide = x.astype(np.float64)
    exact = wide / (1 + np.exp(-wide))
    assert (np.abs(nm.silu(x) - exact) <= 4e-7 * np.abs(exact)).all()
    found = nm.silu(floats(-90, 90, np.inf, 0, np.nan))
    assert bits(found[:1])[0] == 0x80000000
    assert found[1:4].tolist() == [90, np.inf, 0]
    assert np.isnan(found[4])


def test_rmsnorm_is_close_and_flushes():
    x, gain = sample(1, 5, 172, scale=3), sample(2, 172)
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * gain
    assert np.abs(nm.rmsnorm(x, gain, F32(1e-5)) - exact).max() < 2e-6
    zeros = nm.rmsnorm(np.full((1, 8), 1e-40, F32), np.ones(8, F32), F32(1e-5))
    assert (bits(zeros) == 0).all()


# ---- section 3 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [15, 255])
def test_asymmetric_error_is_half_a_step(levels):
    h = sample(5, 7, 300)
    q, s, z = nm.quantize_asymmetric(h, levels)
    assert q.min(axis=1).tolist() == [0] * 7 and q.max(axis=1).tolist() == [levels] * 7
    assert (np.abs(q * s[:, None] + z[:, None] - h) <= 0.501 * s[:, None]).all()


def test_asymmetric_special_vectors():
    h = np.array([[2, 2, 2], [-0.0, -0.0, -0.0], [np.nan, 1, 4]], F32)
    q, s, z = nm.quantize_asymmetric(h, 15)
    assert q.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 15]]
    assert s[:2].tolist() == [1, 1] and s[2] == F32(3) / F32(15)
    assert bits(z)[1] == 0 and z[2] == 1


@pytest.mark.parametrize("clip", [0, 38, 255])
@pytest.mark.parametrize("symmetric", [False, True])
def test_asymmetric_range_is_what_the_clip_leaves(clip, symmetric):
    h = sample(5, 7, 300)
    h[3] = abs(h[3])
    lo, hi = h.min(axis=1), h.max(axis=1)
    if symmetric:
        lo, hi = -np.maximum(-lo, hi), np.maximum(-lo, hi)
    kept = 1 - clip / 256
    q, s, z = nm.quantize_asymmetric(h, 15, clip, symmetric)
    assert np.allclose(z, lo * kept) and np.allclose(z + 15 * s, hi * kept, atol=1e-6)
    inside = (h >= z[:, None]) & (h <= z[:, None] + 15 * s[:, None])
    error = np.abs(q * s[:, None] + z[:, None] - h)
    assert (error[inside] <= np.broadcast_to(0.501 * s[:, None], h.shape)[inside]).all()
    assert set(q[~inside]) <= {0, 15}


@nm.quiet
def test_symmetric_error_and_special_vectors():
    v = sample(6, 9, 64)
    q, s = nm.quantize_symmetric(v)
    assert np.abs(q).max(axis=1).tolist() == [127] * 9
    assert (np.abs(q * s[:, None] - v) <= 0.501 * s[:, None]).all()
    q, s = nm.quantize_symmetric(np.array([[0, -0.0], [np.inf, 1], [1e-37, 0]], F32))
    assert s.tolist() == [0, np.inf, 0]  # 1e-37 / 127 is denormal
    assert q.tolist() == [[0, 0], [-127, 0], [0, 0]]


# ---- section 6 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 4, 64])
def test_hadamard_is_its_own_inverse_and_keeps_blocks_apart(block):
    y = sample(7, 3, 192)
    scale = F32(block**-0.5)
    found = nm.hadamard(y, block, scale)
    assert np.abs(nm.hadamard(found, block, scale) - y).max() < 2e-6
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    exact = y.reshape(3, -1, block).astype(np.float64) @ matrix * block**-0.5
    assert np.abs(found.reshape(exact.shape) - exact).max() < 2e-6
