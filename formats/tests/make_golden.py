"""Writes the golden files of formats/tests with the `gguf` Python package, the reference for what
the bytes of a GGUF tensor mean.

    python formats/tests/make_golden.py                       golden/dequantize.json
    python formats/tests/make_golden.py --model FILE.gguf     golden/default_model.sha256
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

GOLDEN = Path(__file__).parent / "golden"

# Where the float16 fields of a block stand.
HALVES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q8_0: [0], Type.Q4_K: [0, 2], Type.Q6_K: [208]}
# Zeros, subnormals, the smallest normal, ones, the largest; then random ones.
HALF_EDGES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF]


def random_halves(rng: np.random.Generator, count: int) -> np.ndarray:
    values = np.array(HALF_EDGES + [0] * count, np.uint16)[:count]
    rest = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    rest = np.where((rest & 0x7C00) == 0x7C00, rest & 0xBFFF, rest)  # finite
    return np.where(np.arange(count) < len(HALF_EDGES), values, rest).astype(np.uint16)


def case(kind: Type, data: np.ndarray) -> dict:
    values = np.ascontiguousarray(dequantize(data, kind), np.float32)
    return {"type": kind.name, "bytes": data.tobytes().hex(), "floats": values.tobytes().hex()}


def plain_cases(rng: np.random.Generator) -> list[dict]:
    infinities = np.array([0x7C00, 0xFC00], np.uint16)
    halves = np.concatenate([random_halves(rng, 62), infinities]).view(np.uint8)
    brains = rng.integers(0, 1 << 16, 64, dtype=np.uint16)
    brains[:8] = [0x0000, 0x8000, 0x0001, 0x0080, 0x3F80, 0x7F7F, 0x7F80, 0xFF80]
    floats = rng.normal(size=16).astype(np.float32)
    return [
        case(Type.F32, floats.view(np.uint8)),
        case(Type.F16, halves),
        case(Type.BF16, brains.view(np.uint8)),
    ]


def block_case(rng: np.random.Generator, kind: Type) -> dict:
    elements, size = GGML_QUANT_SIZES[kind]
    count = 4 if elements == 256 else 16
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for i, offset in enumerate(HALVES[kind]):
        field = np.roll(random_halves(rng, count), 3 * i)
        blocks[:, offset : offset + 2] = field.view(np.uint8).reshape(count, 2)
    return case(kind, blocks)


def write_dequantize() -> None:
    rng = np.random.default_rng(2026)
    cases = plain_cases(rng) + [block_case(rng, kind) for kind in HALVES]
    path = GOLDEN / "dequantize.json"
    path.write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")


LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MODEL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def canonical(name: str) -> str:
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if layer:
        return f"model.layers.{layer[1]}.{LAYER_NAMES[layer[2]]}.weight"
    return MODEL_NAMES[name.removesuffix(".weight")] + ".weight"


def half_split(weights: np.ndarray, heads: int) -> np.ndarray:
    """Undoes the row order of llama GGUF files: (pair, half) within a head back to (half, pair)."""
    rows, width = weights.shape
    pairs = rows // heads // 2
    return weights.reshape(heads, pairs, 2, width).swapaxes(1, 2).reshape(rows, width)


def write_model(model: Path) -> None:
    reader = GGUFReader(model)
    heads = {
        ".attn_q.": reader.fields["llama.attention.head_count"].contents(),
        ".attn_k.": reader.fields["llama.attention.head_count_kv"].contents(),
    }
    lines = []
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        for part, count in heads.items():
            if part in tensor.name:
                values = half_split(values, count)
        digest = hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()
        lines.append(f"{digest}  {canonical(tensor.name)}\n")
    (GOLDEN / "default_model.sha256").write_text("".join(sorted(lines, key=lambda s: s[66:])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="the default model's GGUF file")
    arguments = parser.parse_args()
    GOLDEN.mkdir(exist_ok=True)
    if arguments.model:
        write_model(arguments.model)
    else:
        write_dequantize()


if __name__ == "__main__":
    main()
