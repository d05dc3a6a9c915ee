"""`flexllm compare` against NumPy: a checkpoint, and the packed model that was made of it."""
import json
import math
import os
import pathlib
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.reference import packed, tiny
from tests.reference.checkpoint import write_checkpoint
from tests.reference.float_model import FloatModel, from_quantized
from tests.reference.model import Model

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
SPEC = tiny.SPECS["plain"]
WINDOW = 64


def flexllm(*arguments):
    return subprocess.run([BUILD / "flexllm", *map(str, arguments)], capture_output=True,
                          text=True, check=False)


def report(*arguments):
    done = flexllm("compare", *arguments, "--window", WINDOW, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A checkpoint, a text and its tokens, and the float model of the checkpoint."""
    folder = tmp_path_factory.mktemp("compare")
    file = tiny.make("plain")
    weights = from_quantized(file.weights(), file.inputs())
    write_checkpoint(folder, SPEC, weights)
    ids = np.random.default_rng(5).integers(0, 2, 3 * WINDOW).tolist()
    (folder / "text").write_text("".join("ab"[token] for token in ids))
    return folder, ids, FloatModel(weights)


def pack(folder, scheme):
    path = folder / f"{scheme}.safetensors"
    done = flexllm("quantize", folder, "-o", path, "--scheme", scheme)
    assert done.returncode == 0, done.stderr
    return path


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def windows(ids):
    return [ids[at:at + WINDOW] for at in range(0, len(ids), WINDOW)]


def test_compares_with_the_kernels_arithmetic(case):
    folder, ids, float_model = case
    file = packed.load(pack(folder, "w8a8kv8-lm8"))
    model, embedding = Model(file.weights()), file.inputs()
    divergence, same = [], []
    for window in windows(ids):
        rows = embedding[np.asarray(window)]
        where = np.arange(len(window))
        states = model.run(rows, np.zeros(len(window), np.int64), where, model.new_cache())
        q = log_softmax(model.logits(model.final_norm(states)))[:-1]
        p = log_softmax(float_model.logits(window))[:-1]
        divergence.extend((np.exp(p) * (p - q)).sum(axis=1))
        same.extend(p.argmax(axis=1) == q.argmax(axis=1))
    got = report(folder, folder / "w8a8kv8-lm8.safetensors", "--text", folder / "text")
    assert got["tokens"] == len(divergence) == 3 * (WINDOW - 1)
    # The kernels' roundings and ours agree but for ties, so figures agree but for some tokens.
    assert got["kl"] == pytest.approx(np.mean(divergence), rel=0.2)
    assert got["top1"] == pytest.approx(np.mean(same), abs=0.03)
    errors = got["layer_error"]
    assert len(errors) == SPEC.layers + 1
    assert errors[0] == 0  # the embedding is binary16 in both
    assert all(1e-3 < error < 0.1 for error in errors[1:])


@pytest.mark.parametrize("scheme", ["w8a8kv8-lm8-r4", "w8a8kv8-lm8-r124"])
def test_rotated_states_are_compared_in_the_checkpoints_basis(case, scheme):
    folder, _, _ = case
    got = report(folder, pack(folder, scheme), "--text", folder / "text")
    assert 0 < got["kl"] < 0.05
    assert got["layer_error"][0] < 1e-3
    assert all(1e-3 < error < 0.1 for error in got["layer_error"][1:])


def test_a_model_is_itself(case):
    folder, ids, float_model = case
    got = report(folder, folder, "--text", folder / "text")
    assert got["kl"] == pytest.approx(0, abs=1e-12)
    assert got["top1"] == 1
    assert got["b_over_a"] == 0
    assert got["layer_error"] == [0] * (SPEC.layers + 1)
    values = np.concatenate([float_model.logprobs(window) for window in windows(ids)])
    assert got["ppl_a"] == pytest.approx(math.exp(-values.mean()), rel=1e-5)


def test_draws_and_says_what_it_found(case, tmp_path):
    folder, _, _ = case
    drawing = tmp_path / "errors.svg"
    done = flexllm("compare", folder, "--requantize", "q4_0", "--text", folder / "text",
                   "--window", WINDOW, "--svg", drawing)
    assert done.returncode == 0, done.stderr
    assert "KL divergence" in done.stdout and "layer 1" in done.stdout
    root = ElementTree.parse(drawing).getroot()
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + (SPEC.layers + 1) + 99


@pytest.mark.parametrize("arguments, code, word", [
    (["A"], 2, "second model"),
    (["A", "A"], 2, "--text is required"),
    (["A", "A", "--text", "TEXT", "--requantize", "q9"], 2, "q4_0, q4_1, q8_0"),
    (["A", "nothing", "--text", "TEXT"], 3, "nothing"),
    (["A", "OTHER", "--text", "TEXT"], 2, "different vocabularies"),
    (["A", "A", "--text", "TEXT", "--window", "64", "--svg", "/nowhere/x.svg"], 1, "/nowhere"),
])  # fmt: skip
def test_refuses_with_a_reason(case, tmp_path, arguments, code, word):
    folder, _, _ = case
    packed.save(tmp_path / "other.safetensors", tiny.make("plain"))
    names = {"A": folder, "TEXT": folder / "text", "OTHER": tmp_path / "other.safetensors"}
    done = flexllm("compare", *[names.get(part, part) for part in arguments])
    assert done.returncode == code, done.stderr
    assert word in done.stderr
