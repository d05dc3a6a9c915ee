"""The quantiser's float model against the NumPy models of tests/reference.

Without rounding it must agree with the float model there to float accuracy. With rounding it must
agree closely with the quantised reference, whose bits are those of the kernels: the two round the
same values in the same places, and differ where float sums fall on either side of a half.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.reference import tiny
from tests.reference.checkpoint import write_checkpoint
from tests.reference.float_model import FloatModel, from_quantized
from tests.reference.layout import Precision
from tests.reference.model import Model
from tests.reference.numerics import F32, Floats

RUNNER = Path(os.environ["FLEXLLM_BUILD"]) / "quantizer" / "quantizer_run_float_model"
LENGTHS = (60, 1, 130, *[4] * 40)
STAGES = "qkv", "o", "gate", "down"


def run(folder: Path, windows: list[list[int]], vocab: int, **request) -> Floats:
    plain = {
        "windows": windows,
        "activations": [],
        "lm_head": [0, 0, False],
        "int8_attention": False,
        "probability_bits": 0,
        "rotate_down": False,
        "threads": 2,
    }
    (folder / "request.json").write_text(json.dumps(plain | request))
    subprocess.run([RUNNER, folder, folder / "request.json", folder / "logits"], check=True)
    return np.fromfile(folder / "logits", F32).reshape(-1, vocab)


def rounding(precision: Precision) -> tuple[int, int, bool]:
    return precision.activation_bits, precision.clip, precision.symmetric


def quantized_logits(model: Model, embedding: Floats, ids: list[int]) -> Floats:
    rows = embedding[np.asarray(ids)]
    where = np.arange(len(ids))
    residual = model.run(rows, np.zeros(len(ids), np.int64), where, model.new_cache())
    return model.logits(model.final_norm(residual))


def rms(x: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def row_rms(x: Floats) -> np.ndarray:
    return np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=1))


@pytest.mark.parametrize("name", ["plain", "odd", "wide", "w4a8", "w4a4", "heads_128"])
def test_float_model_agrees_with_the_references(name: str, tmp_path: Path) -> None:
    spec = tiny.SPECS[name]
    file = tiny.make(name)
    quantized = file.weights()
    weights = from_quantized(quantized, file.inputs())
    write_checkpoint(tmp_path, spec, weights)
    rng = np.random.default_rng(7)
    windows = [rng.integers(0, spec.vocab, length).tolist() for length in LENGTHS]

    reference = FloatModel(weights)
    expected = np.concatenate([reference.logits(ids) for ids in windows])
    rotate = bool(spec.hadamard_block)
    for rotated in {False, rotate}:
        logits = run(tmp_path, windows, spec.vocab, rotate_down=rotated)
        assert rms(logits - expected) < 2e-6 * rms(expected)

    model = Model(quantized)
    rounded = np.concatenate([quantized_logits(model, file.inputs(), ids) for ids in windows])
    simulated = run(
        tmp_path,
        windows,
        spec.vocab,
        activations=[
            [rounding(getattr(layer, part).precision) for part in STAGES]
            for layer in quantized.layers
        ],
        lm_head=rounding(quantized.lm_head.precision),
        int8_attention=True,
        probability_bits=spec.probability_bits,
        rotate_down=rotate,
    )
    # A value that falls on the other side of a half changes all that follows it in its window, so
    # rows agree to float accuracy, or only as well as two roundings of one number.
    size = rms(rounded)
    agreement = np.quantile(row_rms(simulated - rounded), 0.25)
    assert agreement < 1e-5 * size
    assert np.quantile(row_rms(rounded - expected), 0.25) > 1e-3 * size
    assert rms(simulated - rounded) < 0.8 * rms(rounded - expected)
