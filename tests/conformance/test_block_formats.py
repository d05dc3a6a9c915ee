"""Rounding through llama.cpp's block formats against the `gguf` package, bit for bit."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

RUNNER = Path(os.environ["FLEXLLM_BUILD"]) / "quantizer" / "quantizer_run_round_blocks"


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q8_0"])
def test_rounding_equals_the_gguf_package(name: str) -> None:
    rng = np.random.default_rng(11)
    values = rng.normal(0, 1, (4000, 32)) * 10.0 ** rng.uniform(-6, 3, (4000, 1))
    values[:50] = 0
    values[50:100] = rng.integers(-4, 5, (50, 32)) / 2  # ties, and magnitudes that are equal
    values[100:110, 1:] = 0
    values[110:120] = rng.uniform(1, 2, (10, 32))  # of one sign
    values = values.astype(np.float32)
    kind = GGMLQuantizationType[name.upper()]
    expected = dequantize(quantize(values, kind), kind)
    out = subprocess.run([RUNNER, name], input=values.tobytes(), check=True, capture_output=True)
    ours = np.frombuffer(out.stdout, np.float32).reshape(values.shape)
    assert np.array_equal(ours.view(np.uint32) & 0x7FFFFFFF, expected.view(np.uint32) & 0x7FFFFFFF)
    assert np.array_equal(ours, expected)
