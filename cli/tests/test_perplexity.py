"""`flexllm perplexity` without a card: its protocols and figures against NumPy, and its refusals."""
import json
import math
import os
import pathlib
import resource
import subprocess

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from tests.reference import packed, tiny
from tests.reference.checkpoint import TOKENIZER, write_checkpoint
from tests.reference.float_model import FloatModel, from_quantized
from tests.reference.perplexity import perplexity

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
SPEC = tiny.SPECS["plain"]
TOKENS = 300
BEGIN = 2  # a beginning-of-text token, where a tokenizer adds one


def flexllm(*arguments):
    return subprocess.run([BUILD / "flexllm", "perplexity", *map(str, arguments)],
                          capture_output=True, text=True, check=False)


def report(*arguments):
    done = flexllm(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def weights():
    file = tiny.make("plain")
    return from_quantized(file.weights(), file.inputs())


@pytest.fixture
def folder(tmp_path, weights):
    write_checkpoint(tmp_path, SPEC, weights)
    return tmp_path


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(5).integers(0, 2, TOKENS).tolist()


@pytest.fixture
def text(tmp_path, ids):
    path = tmp_path / "text.txt"
    path.write_text("".join("ab"[token] for token in ids))
    return path


def add_begin(folder):
    token = {"id": BEGIN, "content": "<s>", "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True}
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER | {"added_tokens": [token]}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "add_bos_token": True}))


def test_wikitext2_predicts_all_but_the_first_of_each_window(folder, text, weights, ids):
    expected, count = perplexity(FloatModel(weights).logprobs, ids, 64)
    got = report(folder, "--text", text, "--float", "--window", 64)
    assert (got["tokens"], got["protocol"], got["window"]) == (count, "wikitext2", 64)
    assert got["ppl_float"] == pytest.approx(expected, rel=1e-5)
    assert got["ppl"] is None
    first = report(folder, "--text", text, "--float", "--window", 64, "--tokens", 100)
    assert first["ppl_float"] == pytest.approx(
        perplexity(FloatModel(weights).logprobs, ids[:100], 64)[0], rel=1e-5)


@pytest.mark.parametrize("begins", [False, True])
def test_llama_cpp_predicts_the_second_half_of_whole_windows(folder, text, weights, ids, begins):
    text.write_text(text.read_text() + "\n")  # which llama.cpp takes off
    if begins:
        add_begin(folder)
        ids = [BEGIN, *ids]
    values = []
    for at in range(0, len(ids) - 63, 64):
        window = ids[at:at + 64]
        if begins:
            window[0] = BEGIN
        values.extend(FloatModel(weights).logprobs(window)[32:])
    got = report(folder, "--text", text, "--float", "--protocol", "llama.cpp", "--window", 64)
    assert got["tokens"] == len(values) == 4 * 31
    assert got["ppl_float"] == pytest.approx(math.exp(-np.mean(values)), rel=1e-5)
    error = np.std(values, ddof=1) / math.sqrt(len(values)) * got["ppl_float"]
    assert got["stderr_float"] == pytest.approx(error, rel=1e-4)


def test_requantize_is_the_model_with_rounded_weights(folder, text, weights, ids, tmp_path):
    def rounded(matrix, kind):
        if matrix.shape[1] % 32:
            return matrix
        return dequantize(quantize(matrix, kind), kind)

    q4, q8 = GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0
    layers = [type(layer)(*[rounded(getattr(layer, name), q4) for name in
                            ("qkv", "o", "gate", "up", "down")],
                          layer.attention_norm, layer.ffn_norm) for layer in weights.layers]
    changed = type(weights)(weights.shape, layers, rounded(weights.embedding, q8),
                            weights.final_norm, rounded(weights.lm_head, q8),
                            weights.cos, weights.sin)
    here = FloatModel(changed).logprobs(ids[:200])
    there = FloatModel(weights).logprobs(ids[:200])
    window = ["--window", 200, "--tokens", 200, "--text", text]
    got = report(folder, "--requantize", "q4_0", *window)
    assert got["scheme"] == "q4_0"
    assert got["ppl"] == pytest.approx(math.exp(-here.mean()), rel=1e-5)
    assert got["ppl_float"] == pytest.approx(math.exp(-there.mean()), rel=1e-5)
    ratio = math.exp((there - here).mean())
    assert got["over_float"] == pytest.approx(ratio - 1, abs=1e-5)
    paired = ratio * np.std(there - here, ddof=1) / math.sqrt(len(here))
    assert got["over_float_stderr"] == pytest.approx(paired, rel=1e-3)
    assert report(folder, "--requantize", "q4_0", "--no-float", *window)["ppl_float"] is None


def losses_of(path):
    return np.fromfile(path, "<f4").astype(float)


def test_losses_are_those_of_the_figure(folder, text, weights, ids, tmp_path):
    file = tmp_path / "losses"
    window = ["--window", 200, "--tokens", 200, "--text", text, "--losses", file]
    got = report(folder, "--float", *window)
    np.testing.assert_allclose(losses_of(file), -FloatModel(weights).logprobs(ids[:200]), atol=1e-4)
    plain = losses_of(file)
    got = report(folder, "--requantize", "q4_0", *window)  # replaces it
    assert math.exp(losses_of(file).mean()) == pytest.approx(got["ppl"], rel=1e-6)
    ratio = math.exp((losses_of(file) - plain).mean())
    assert got["over_float"] == pytest.approx(ratio - 1, abs=1e-5)
    assert sorted(path.name for path in tmp_path.glob("losses*")) == ["losses"]


def test_losses_of_the_card(folder, text, tmp_path):
    file = tmp_path / "losses"
    model = tmp_path / "packed.safetensors"
    subprocess.run([BUILD / "flexllm", "quantize", folder, "--scheme", "w8a8kv8-lm8", "-o", model],
                   check=True, capture_output=True)
    got = report(model, "--text", text, "--window", 64, "--losses", file, "--device", "emulated")
    assert len(losses_of(file)) == got["tokens"]
    assert math.exp(losses_of(file).mean()) == pytest.approx(got["ppl"], rel=1e-6)


def test_losses_that_cannot_be_written(folder, text, tmp_path):
    for path, word in ((tmp_path / "no" / "losses", "there is no folder"), (tmp_path, "is a folder")):
        done = flexllm(folder, "--text", text, "--float", "--losses", path)
        assert done.returncode == 2 and word in done.stderr and str(tmp_path) in done.stderr
        assert done.stdout == ""
    file = tmp_path / "losses"
    file.write_bytes(b"before")
    done = subprocess.run(
        [BUILD / "flexllm", "perplexity", folder, "--text", text, "--float", "--window", "200",
         "--losses", file],
        capture_output=True, text=True, check=False, restore_signals=False,  # SIGXFSZ stays ignored
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512)))
    assert done.returncode == 1 and done.stdout == ""
    assert f"--losses: cannot write {file}: File too large" in done.stderr
    assert file.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.glob("losses*")) == ["losses"]


def test_threads_change_no_bit(folder, text):
    figures = {report(folder, "--text", text, "--float", "--window", 200, "--threads", n)["ppl_float"]
               for n in (1, 2, 3)}
    assert len(figures) == 1


@pytest.mark.parametrize("arguments, code, word", [
    (["--text", "TEXT", "--float", "--protocol", "ptb"], 2, "wikitext2, llama.cpp"),
    (["--text", "TEXT", "--float", "--no-float"], 2, "--no-float"),
    (["--text", "TEXT", "--requantize", "q5_1"], 2, "q4_0, q4_1, q8_0"),
    (["--text", "TEXT", "--requantize", "q4_0", "--float"], 2, "--requantize"),
    (["--text", "TEXT", "--requantize", "q4_0", "--scheme", "w8a8kv8-lm8"], 2, "--scheme"),
    (["--text", "TEXT", "--float", "--window", "100000"], 2, "--window must lie in 2..256"),
    (["--text", "TEXT", "--float", "--protocol", "llama.cpp", "--window", "3"], 2, "4..256"),
    (["--text", "TEXT", "--float", "--window", "256", "--tokens", "1"], 2, "1 tokens"),
    (["--text", "TEXT", "--float", "--protocol", "llama.cpp", "--window", "256", "--tokens",
      "255"], 2, "255 tokens"),
    (["--text", ".", "--float"], 2, "--text: cannot read"),
    (["--text", "no-such-file", "--float"], 2, "no-such-file"),
    (["--float"], 2, "--text is required"),
])  # fmt: skip
def test_refuses_with_a_reason(folder, text, arguments, code, word):
    done = flexllm(folder, *[str(text) if part == "TEXT" else part for part in arguments])
    assert done.returncode == code, done.stderr
    assert word in done.stderr
    assert done.stdout == ""


def test_refuses_models_that_cannot_be_run(folder, text, tmp_path):
    done = flexllm(tmp_path / "nothing", "--text", text, "--float")
    assert done.returncode == 3 and "nothing" in done.stderr
    file = tmp_path / "packed.safetensors"
    packed.save(file, tiny.make("plain"))
    for option in (["--float"], ["--requantize", "q8_0"]):
        done = flexllm(file, "--text", text, *option)
        assert done.returncode == 2 and "packed model has no float form" in done.stderr
    weights, meta = packed.load_tensors(folder / "model.safetensors")
    broken = {name: np.array(tensor) for name, tensor in weights.items()}
    broken["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    packed.save_tensors(folder / "model.safetensors", broken, meta)
    done = flexllm(folder, "--text", text, "--float", "--window", 64)
    assert done.returncode == 3 and "model.layers.1.mlp.up_proj.weight" in done.stderr
