"""Small random models as packed files, the same bytes for the same name, seed and stream count.

    python -m tests.reference.tiny --name odd --streams 3 --out odd.safetensors [--seed 1]
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import packed
from .buffers import Layer, Shape, Weights
from .layout import GROUP, Matrix, Precision, divide_up, make_matrix
from .numerics import F32, Floats

W4A4, W4A8 = Precision(4, 4), Precision(4, 8)
W8A4, W8A8 = Precision(8, 4), Precision(8, 8)


@dataclass(frozen=True)
class Spec:
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    ffn: int = 172
    vocab: int = 97
    context: int = 256
    hadamard_block: int = 0
    probability_bits: int = 8
    qk_norm: bool = False
    attention_bias: bool = False
    grouped: bool = False
    half_embedding: bool = True  # F16, else F32
    saturated: bool = False  # some rows hold the largest integers and multipliers throughout
    qkv: Precision = W8A8
    o: Precision = W8A8
    gate_up: Precision = W8A8
    down: Precision = W8A8
    lm_head: Precision = W8A8


SPECS = {
    "plain": Spec(),
    # Every shape is odd: head_dim 8 with GQA 3, ffn that fills no tile or group, bias, q/k norms.
    "odd": Spec(
        layers=3,
        hidden=64,
        heads=6,
        kv_heads=2,
        head_dim=8,
        vocab=300,
        hadamard_block=4,
        qk_norm=True,
        attention_bias=True,
        grouped=True,
        half_embedding=False,
        qkv=W4A8,
        o=W8A4,
        gate_up=W4A4,
        down=replace(W8A8, symmetric=True),
        lm_head=replace(W8A8, clip=3),
    ),
    "w4a4": Spec(
        grouped=True,
        hadamard_block=4,
        vocab=300,
        qkv=replace(W4A4, clip=38),
        o=replace(W4A4, clip=26, symmetric=True),
        gate_up=W4A4,
        down=replace(W4A4, clip=38),
        lm_head=W4A4,
    ),
    "w4a8": Spec(grouped=True, qkv=W4A8, o=W4A8, gate_up=W4A8, down=W4A8),
    "wide": Spec(  # Hadamard 64, 16-bit probabilities, attention wider than hidden
        hidden=96, heads=8, kv_heads=8, ffn=192, hadamard_block=64, probability_bits=16, vocab=130
    ),
    "small_vocab": Spec(vocab=40, heads=4, kv_heads=1, head_dim=8, lm_head=W4A8),
    "heads_128": Spec(hidden=128, heads=2, kv_heads=1, head_dim=128, ffn=100, context=512),
    "long": Spec(layers=1, kv_heads=1, context=4096),
    "long_16": Spec(layers=1, kv_heads=1, context=4096, probability_bits=16),
    # Integer sums of the down projection need more than 32 bits.
    "wide_sums": Spec(layers=1, ffn=8196, grouped=True, hadamard_block=4, saturated=True),
}


def random_matrix(
    rng: np.random.Generator,
    outputs: int,
    inputs: int,
    precision: Precision,
    saturated: bool = False,
) -> Matrix:
    """Outputs of unit size for inputs of unit size; all integers of the range occur."""
    limit = 1 << (precision.weight_bits - 1)
    weights = rng.integers(-limit, limit, (outputs, inputs), dtype=np.int8)
    multipliers, size = None, limit / 3**0.5
    if precision.grouped:
        groups = divide_up(inputs, GROUP)
        multipliers = rng.integers(1, 64, (outputs, groups), dtype=np.uint8)
        size *= 37
    scales = rng.uniform(0.5, 1.5, outputs) / (size * inputs**0.5)
    if saturated:
        weights[::16], weights[8::16] = -limit, limit - 1
        scales[::8] = 1 / (limit * 37 * inputs)
        if multipliers is not None:
            multipliers[::8] = 63
    bias = rng.normal(0, 0.5, outputs).astype(F32) if precision.bias else None
    return make_matrix(precision, weights, scales.astype(F32), multipliers, bias)


def rope_tables(context: int, head_dim: int, theta: float = 10000.0) -> tuple[Floats, Floats]:
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = np.arange(context)[:, None] * frequencies
    return np.cos(angles).astype(F32), np.sin(angles).astype(F32)


def build(spec: Spec, seed: int = 0) -> tuple[Weights, np.ndarray]:
    """Weights and the embedding as stored."""
    rng = np.random.default_rng(seed)
    shape = Shape(
        spec.layers,
        spec.hidden,
        spec.heads,
        spec.kv_heads,
        spec.head_dim,
        spec.ffn,
        spec.vocab,
        spec.context,
        F32(1e-5),
        F32(spec.head_dim**-0.5),
        spec.hadamard_block,
        F32(max(spec.hadamard_block, 1) ** -0.5),
        spec.probability_bits,
    )

    def matrix(outputs: int, inputs: int, precision: Precision, bias: bool = False) -> Matrix:
        precision = replace(precision, grouped=spec.grouped, bias=bias)
        return random_matrix(rng, outputs, inputs, precision, spec.saturated)

    def gain(size: int) -> Floats:
        return rng.uniform(0.5, 1.5, size).astype(F32)

    def layer() -> Layer:
        return Layer(
            matrix(shape.qkv, shape.hidden, spec.qkv, spec.attention_bias),
            matrix(shape.hidden, shape.attention, spec.o),
            matrix(shape.ffn, shape.hidden, spec.gate_up),
            matrix(shape.ffn, shape.hidden, spec.gate_up),
            matrix(shape.hidden, shape.ffn, spec.down),
            gain(shape.hidden),
            gain(shape.hidden),
            gain(shape.head_dim) if spec.qk_norm else None,
            gain(shape.head_dim) if spec.qk_norm else None,
        )

    layers = [layer() for _ in range(spec.layers)]
    final_norm = gain(shape.hidden)
    lm_head = matrix(shape.vocab, shape.hidden, spec.lm_head)
    embedding = rng.normal(0, 1, (shape.vocab, shape.hidden))
    embedding = embedding.astype(np.float16 if spec.half_embedding else F32)
    tables = rope_tables(shape.context, shape.head_dim)
    return Weights(shape, layers, final_norm, lm_head, *tables), embedding


def metadata(name: str, spec: Spec) -> dict[str, str]:
    """`config` carries the names of formats/model_config.h."""
    config = {
        "name": f"tiny-{name}",
        "layers": spec.layers,
        "hidden": spec.hidden,
        "ffn": spec.ffn,
        "heads": spec.heads,
        "kv_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "vocab": spec.vocab,
        "context_length": spec.context,
        "rms_eps": float(F32(1e-5)),
        "tied_embeddings": False,
        "attention_bias": spec.attention_bias,
        "qk_norm": spec.qk_norm,
        "rope": {
            "theta": 10000.0,
            "scaling": "none",
            "factor": 1.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_context_length": spec.context,
            "frequency_factors": [],
        },
    }
    scheme = f"w{spec.qkv.weight_bits}a{spec.qkv.activation_bits}kv8-lm{spec.lm_head.weight_bits}"
    return {
        "config": json.dumps(config),
        "generation": "{}",
        "scheme": scheme,
        "source": f"tests/reference/tiny.py, {name}",
        "source_sha256": "",
    }


def make(name: str, streams: int = 4, seed: int = 0) -> packed.Packed:
    spec = SPECS[name]
    weights, embedding = build(spec, seed)
    return packed.pack(weights, streams, embedding, metadata(name, spec))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny random model as a packed file.")
    parser.add_argument("--name", choices=SPECS, default="plain")
    parser.add_argument("--streams", type=int, default=4, help="weight streams, 1 to 16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    packed.save(args.out, make(args.name, args.streams, args.seed))


if __name__ == "__main__":
    main()
