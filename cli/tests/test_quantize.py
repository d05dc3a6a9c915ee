"""`flexllm quantize --method gptq`: the text it looks at, the file it writes, and its refusals."""
import json
import os
import pathlib
import subprocess

import pytest
from safetensors import safe_open

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
SCHEME = "w4g64a8kv8-lm8-r4"


@pytest.fixture
def quantize(tmp_path, folder):
    def run(*arguments, output="out.safetensors"):
        done = subprocess.run(
            [BUILD / "flexllm", "quantize", folder, "-o", tmp_path / output, "--scheme", SCHEME,
             *map(str, arguments)],
            capture_output=True, text=True, check=False,
            env=os.environ | {"FLEXLLM_CACHE": str(tmp_path / "cache")})
        return done, tmp_path / output

    return run


def rounding(path):
    with safe_open(path, "numpy") as file:
        return file.metadata().get("rounding")


def test_the_model_writes_its_own_text_once(quantize, tmp_path):
    sampled = ("--method", "gptq", "--calibration-windows", 3, "--calibration-tokens", 40)
    done, first = quantize(*sampled, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "to calibrate with" in done.stderr
    assert rounding(first).startswith("gptq ")
    texts = list((tmp_path / "cache" / "calibration").iterdir())
    assert len(texts) == 1
    windows = json.loads(texts[0].read_text())
    assert [len(window) for window in windows] == [40, 40, 40]
    assert len({tuple(window) for window in windows}) == 3

    done, second = quantize(*sampled, "--threads", 2, output="again.safetensors")
    assert done.returncode == 0, done.stderr
    assert "to calibrate with" not in done.stderr
    assert second.read_bytes() == first.read_bytes()

    texts[0].write_text("[[1,")  # damaged: written anew, with the same seed the same
    done, third = quantize(*sampled, output="third.safetensors")
    assert done.returncode == 0, done.stderr
    assert json.loads(texts[0].read_text()) == windows
    assert third.read_bytes() == first.read_bytes()


def test_a_file_may_be_looked_at_instead(quantize, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("abba" * 40)
    done, given = quantize("--method", "gptq", "--calibration", text, "--calibration-tokens", 50)
    assert done.returncode == 0, done.stderr
    done, nearest = quantize(output="nearest.safetensors")
    assert done.returncode == 0, done.stderr
    assert rounding(nearest) == "rtn"
    assert given.read_bytes() != nearest.read_bytes()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (("--method", "awq"), "--method must be rtn"),
    (("--method", "gptq", "--calibration", "/nowhere"), "cannot read /nowhere"),
    (("--method", "gptq", "--calibration", "/tmp"), "cannot read /tmp"),
    (("--method", "gptq", "--calibration-tokens", "1000000"), "--calibration-tokens: at most"),
    (("--method", "gptq", "--calibration-windows", "4000"), "--calibration-windows: at most"),
    (("--method", "gptq", "--gptq-damping", "0"), "--gptq-damping"),
    (("--method", "gptq", "--gptq-order", "random"), "--gptq-order must be"),
])
def test_it_refuses(quantize, arguments, message):
    done, output = quantize(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not output.exists()


def test_a_text_may_be_too_short(quantize, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("ab")
    done, output = quantize("--method", "gptq", "--calibration", text)
    assert done.returncode == 2
    assert "fewer than one window" in done.stderr
    assert not output.exists()
