"""The model against loops over the page's formulas, and what must not change its bits."""

import numpy as np
import pytest

from . import numerics as nm
from . import tiny
from .attention import attend
from .fields import NO_ID
from .float_model import FloatModel, from_quantized, rope_order, round_weights
from .kv import KeysValues, PagedCache, PageLayout
from .layout import Precision
from .model import Linear, Model, RowResults, generate, row_results
from .numerics import F32, Floats
from .perplexity import perplexity, quantized_logprobs


def bits(x: Floats) -> np.ndarray:
    return np.ascontiguousarray(x, F32).view(np.uint32)


def load(name: str, streams: int = 4, seed: int = 0) -> tuple[Model, Floats]:
    file = tiny.make(name, streams, seed)
    return Model(file.weights()), file.inputs()


# ---- section 4 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("inputs", [64, 172, 2048])
@pytest.mark.parametrize("weight_bits, activation_bits", [(4, 4), (4, 8), (8, 4), (8, 8)])
def test_linear_is_exact_integers_then_four_roundings(
    weight_bits, activation_bits, inputs, grouped
):
    rng = np.random.default_rng(inputs)
    precision = Precision(weight_bits, activation_bits, grouped, bias=True)
    matrix = tiny.random_matrix(rng, 40, inputs, precision)
    matrix.weights[0] = -(1 << (weight_bits - 1))  # the largest magnitudes there are
    if grouped:
        matrix.multipliers[0] = 63
    q = rng.integers(0, precision.levels + 1, (3, inputs)).astype(F32)
    q[0] = precision.levels
    s, z = rng.uniform(0.01, 0.1, 3).astype(F32), rng.normal(0, 1, 3).astype(F32)
    acc = q.astype(np.int64) @ matrix.integers().astype(np.int64).T
    expected = acc.astype(F32) * (s[:, None] * matrix.scales)
    expected = expected + z[:, None] * matrix.sums
    expected = expected + matrix.bias
    assert (bits(Linear(matrix)(q, s, z)) == bits(expected)).all()


# ---- section 5 ---------------------------------------------------------------------------------


def naive_attention(q, position, kv: KeysValues, inv_sqrt, levels) -> Floats:
    """One row, loop by loop. q: [heads][head_dim]."""
    out = np.zeros_like(q)
    group = len(q) // len(kv.keys)
    for head in range(len(q)):
        h = head // group
        q8, scale = nm.quantize_symmetric(q[head][None])
        f = F32(scale[0] * inv_sqrt)
        tokens = range(position + 1)
        a = [
            F32(F32(int((q8[0] * kv.keys[h, t]).astype(np.int64).sum())))
            * F32(f * kv.key_scales[h, t])
            for t in tokens
        ]
        m = max(a)
        largest = max(kv.value_scales[h, t] for t in tokens)
        inverse = F32(1) / largest if largest > 0 else F32(0)
        p = F32(levels)
        denominator, numerator = 0, np.zeros(q.shape[1], np.int64)
        for t in tokens:
            e = nm.exp(np.array([a[t] - m], F32))[0]
            denominator += int(nm.quantize(e * p, 0, levels))
            n = int(nm.quantize((e * (kv.value_scales[h, t] * inverse)) * p, 0, levels))
            numerator += n * kv.values[h, t].astype(np.int64)
        out[head] = numerator.astype(F32) * (largest / F32(denominator))
    return out


@nm.quiet
@pytest.mark.parametrize("probability_bits", [8, 16])
@pytest.mark.parametrize("tokens", [1, 33, 600])
@pytest.mark.parametrize("scale", [0.02, 0.0])
def test_attention_is_the_loops_of_the_page(tokens, probability_bits, scale):
    rng = np.random.default_rng(tokens)
    heads, kv_heads, size = 6, 2, 8
    kv = KeysValues(
        rng.integers(-127, 128, (kv_heads, tokens, size)).astype(F32),
        rng.uniform(0, 0.02, (kv_heads, tokens)).astype(F32),
        rng.integers(-127, 128, (kv_heads, tokens, size)).astype(F32),
        (scale * rng.uniform(0, 1, (kv_heads, tokens))).astype(F32),
    )
    positions = np.unique(rng.integers(0, tokens, 5))
    q = rng.normal(0, 2, (len(positions), heads, size)).astype(F32)
    inv_sqrt = F32(size**-0.5)
    found = attend(q, positions, kv, inv_sqrt, probability_bits)
    for row, position in enumerate(positions):
        levels = (1 << probability_bits) - 1
        expected = naive_attention(q[row], int(position), kv, inv_sqrt, levels)
        assert (found[row] == expected).all()


@nm.quiet
def test_attention_with_scales_near_the_denormals():
    rng = np.random.default_rng(8)
    kv = KeysValues(
        rng.integers(-127, 128, (1, 40, 8)).astype(F32),
        (10.0 ** rng.uniform(-38, 0, (1, 40))).astype(F32),
        rng.integers(-127, 128, (1, 40, 8)).astype(F32),
        (10.0 ** rng.uniform(-37.5, 0, (1, 40))).astype(F32),
    )
    sizes = 10.0 ** np.array([-34, -20, -3, 0])[:, None, None]
    q = (rng.normal(0, 1, (4, 2, 8)) * sizes).astype(F32)
    found = attend(q, np.array([36, 37, 38, 39]), kv, F32(0.35), 8)
    for row in range(4):
        expected = naive_attention(q[row], 36 + row, kv, F32(0.35), 255)
        assert (found[row] == expected).all()


# ---- what must not change the bits -------------------------------------------------------------


@pytest.fixture(params=list(tiny.SPECS), scope="module")
def name(request) -> str:
    return request.param


def whole_run(model: Model, inputs: Floats, cache) -> Floats:
    count = len(inputs)
    return model.run(inputs, np.zeros(count, np.int64), np.arange(count), cache)


def prompt(name: str, count: int = 70, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, tiny.SPECS[name].vocab, count)


def test_chunks_do_not_change_bits(name):
    model, embedding = load(name)
    ids = prompt(name)
    cache = model.new_cache()
    expected = whole_run(model, embedding[ids], cache)
    for chunk in (1, 7, 32):
        other = model.new_cache()
        parts = [
            model.run(embedding[ids[w]], np.zeros(len(w), np.int64), w, other)
            for w in np.split(np.arange(70), range(chunk, 70, chunk))
        ]
        assert (bits(np.concatenate(parts)) == bits(expected)).all()
        for page in range(3):
            assert (other.page(0, page, 70) == cache.page(0, page, 70)).all()


def test_the_batch_does_not_change_bits(name):
    model, embedding = load(name)
    lengths, sequences = [3, 40, 1, 17], [5, 0, 9, 2]
    alone, rows = [], []
    for sequence, length in zip(sequences, lengths):
        ids = prompt(name, length, sequence)
        alone.append(whole_run(model, embedding[ids], model.new_cache()))
        rows += [(position, sequence, token) for position, token in enumerate(ids)]
    rows.sort()  # sequences mixed, each in ascending position
    positions, members, ids = np.array(rows).T
    together = model.run(embedding[ids], members, positions, model.new_cache())
    for sequence, expected in zip(sequences, alone):
        assert (bits(together[members == sequence]) == bits(expected)).all()


def test_stream_counts_do_not_change_bits(name):
    ids = prompt(name, 20)
    found = []
    for streams in (1, 3, 16):
        model, embedding = load(name, streams)
        found.append(bits(whole_run(model, embedding[ids], model.new_cache())))
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()


def test_page_order_does_not_change_bits(name):
    model, embedding = load(name)
    shape, ids = model.shape, prompt(name)
    plain = model.new_cache()
    expected = whole_run(model, embedding[ids], plain)
    pages = PageLayout(shape.layers, shape.kv_heads, shape.head_dim)
    for streams, table in ((1, [0, 1, 2]), (2, [3, 0, 4]), (3, [8, 7, 1])):
        arenas = [np.full(5 * pages.page_bytes, 0xAA, np.uint8) for _ in range(streams)]
        paged = PagedCache(pages, arenas, [np.array(table)])
        assert (bits(whole_run(model, embedding[ids], paged)) == bits(expected)).all()
        for index in (0, 1):  # full pages
            assert (paged.page(table[index]) == plain.page(0, index, 70)).all()


def test_layer_ranges_compose(name):
    model, embedding = load(name)
    ids, where = prompt(name, 20), np.arange(20)
    expected = whole_run(model, embedding[ids], model.new_cache())
    cache, zeros = model.new_cache(), np.zeros(20, np.int64)
    x = model.run(embedding[ids], zeros, where, cache, 0, 1)
    x = model.run(x, zeros, where, cache, 1, 1)
    x = model.run(x, zeros, where, cache, 1, None)
    assert (bits(x) == bits(expected)).all()


def test_a_row_that_is_not_finite_leaves_others_alone(name):
    model, embedding = load(name)
    ids = prompt(name, 12)
    inputs, sequences = embedding[ids], np.repeat([0, 1], 6)
    where = np.tile(np.arange(6), 2)
    expected = model.run(inputs, sequences, where, model.new_cache())
    bad = inputs.copy()
    bad[8] = np.nan
    bad[9, 3] = np.inf
    found = model.run(bad, sequences, where, model.new_cache())
    same = bits(found) == bits(expected)
    assert same[:8].all() and not np.isfinite(found[8]).all()


# ---- section 7 ---------------------------------------------------------------------------------


def one_row(values) -> RowResults:
    return row_results(np.array([values], F32))


def test_ties_go_to_the_lowest_id():
    found = one_row([-0.0, 3, 0, 3, -1])
    assert found.argmax[0] == 1
    assert found.top_ids[0, :5].tolist() == [1, 3, 0, 2, 4]
    assert found.top_logits[0, :5].tolist() == [3, 3, 0, 0, -1]
    assert (found.top_ids[0, 5:] == NO_ID).all() and (found.top_logits[0, 5:] == -np.inf).all()


def test_ties_across_the_last_place():
    values = np.zeros(200)
    values[::2] = 1
    assert one_row(values).top_ids[0].tolist() == list(range(0, 128, 2))


def test_nan_never_competes():
    found = one_row([np.nan, 1, -np.inf, 2])
    assert found.argmax[0] == 3 and found.maximum[0] == 2
    assert found.top_ids[0, :3].tolist() == [3, 1, NO_ID]
    assert one_row([np.nan, -np.inf]).argmax[0] == 0


def test_log_sum_exp_is_close():
    logits = np.random.default_rng(2).normal(0, 4, (5, 300)).astype(F32)
    wide = logits.astype(np.float64)
    exact = np.log(np.exp(wide).sum(axis=1))
    assert np.abs(row_results(logits).log_sum_exp - exact).max() < 2e-6


# ---- against the float model -------------------------------------------------------------------


def relative_error(found: Floats, expected: Floats) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def run_logits(model: Model, inputs: Floats) -> Floats:
    return model.logits(model.final_norm(whole_run(model, inputs, model.new_cache())))


@pytest.mark.parametrize("name", ["plain", "w4a8", "wide", "heads_128"])
def test_eight_bit_activations_approximate_the_float_model(name):
    weights, embedding = tiny.build(tiny.SPECS[name])
    embedding = embedding.astype(F32)
    ids = prompt(name, 60)
    expected = FloatModel(from_quantized(weights, embedding)).logits(ids)
    assert relative_error(run_logits(Model(weights), embedding[ids]), expected) < 0.025


@pytest.mark.parametrize("name", ["odd", "w4a4"])
def test_four_bit_activations_are_related_to_the_float_model(name):
    """Four bits of activations are coarse; a wrong permutation or norm would give about 1.4."""
    weights, embedding = tiny.build(tiny.SPECS[name])
    embedding = embedding.astype(F32)
    ids = prompt(name, 60)
    expected = FloatModel(from_quantized(weights, embedding)).logits(ids)
    assert relative_error(run_logits(Model(weights), embedding[ids]), expected) < 0.35


@pytest.mark.parametrize("grouped", [False, True])
def test_rounding_a_float_model_gives_a_close_quantised_one(grouped):
    weights, embedding = tiny.build(tiny.SPECS["plain"])
    source = from_quantized(weights, embedding.astype(F32))
    precision = Precision(8, 8, grouped)
    rounded = Model(round_weights(source, precision, precision))
    ids = prompt("plain", 60)
    expected = FloatModel(source).logits(ids)
    assert relative_error(run_logits(rounded, source.embedding[ids]), expected) < 0.025


def test_perplexities_agree():
    weights, embedding = tiny.build(tiny.SPECS["plain"])
    embedding = embedding.astype(F32)
    ids = prompt("plain", 150).tolist()
    quantised, count = perplexity(quantized_logprobs(Model(weights), embedding), ids, 64)
    exact, _ = perplexity(FloatModel(from_quantized(weights, embedding)).logprobs, ids, 64)
    assert count == 63 + 63 + 21
    assert quantised == pytest.approx(exact, rel=0.05)


def test_perplexity_of_a_uniform_model_is_the_vocabulary():
    def uniform(ids):
        return np.full(len(ids) - 1, -np.log(97))

    assert perplexity(uniform, list(range(50)), 20)[0] == pytest.approx(97)


def test_rope_order_undoes_the_pairs_of_gguf():
    rows = np.arange(16)[:, None]  # two heads of 8
    paired = rows.reshape(2, 2, 4, 1).swapaxes(1, 2).reshape(16, 1)
    assert paired[:4, 0].tolist() == [0, 4, 1, 5]
    assert (rope_order(paired, 2) == rows).all()


def test_generation_is_the_same_alone_and_in_a_batch(name):
    model, embedding = load(name)
    prompts = [[1, 2, 3], [4], list(range(30))]
    together = generate(model, embedding, prompts, 6)
    assert together == [generate(model, embedding, [p], 6, chunk=4)[0] for p in prompts]
