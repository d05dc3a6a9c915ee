"""A checkpoint of a real model's shape with random weights, to measure time and memory with.

    python -m tests.bench.make_checkpoint configs/models/llama-3.2-1b.json FOLDER

writes a Hugging Face folder in bfloat16, a slice of a tensor at a time. What such a model says means
nothing: its matrices are normal with a deviation of 0.02, its embeddings are tied and its tokens are
single bytes.
"""

import argparse
import json
import math
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.checkpoint import TOKENIZER

DEVIATION = 0.02
CONTEXT = 4096
SLICE = 1 << 22  # values at a time
SPARE = 1 << 30  # bytes that stay free


def tensors(shape: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    hidden, ffn = shape["d"], shape["ffn"]
    queries, keys = (shape[name] * shape["head_dim"] for name in ("heads", "kv_heads"))
    yield "model.embed_tokens.weight", [shape["vocabulary"], hidden]
    for layer in range(shape["layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", [hidden]
        yield prefix + "self_attn.q_proj.weight", [queries, hidden]
        yield prefix + "self_attn.k_proj.weight", [keys, hidden]
        yield prefix + "self_attn.v_proj.weight", [keys, hidden]
        yield prefix + "self_attn.o_proj.weight", [hidden, queries]
        yield prefix + "post_attention_layernorm.weight", [hidden]
        yield prefix + "mlp.gate_proj.weight", [ffn, hidden]
        yield prefix + "mlp.up_proj.weight", [ffn, hidden]
        yield prefix + "mlp.down_proj.weight", [hidden, ffn]
    yield "model.norm.weight", [hidden]


def bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) >> 16).astype("<u2")


def write_tensors(path: Path, shape: dict[str, Any], seed: int) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, sizes in tensors(shape):
        begin, end = end, end + 2 * math.prod(sizes)
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [begin, end]}
    if (free := shutil.disk_usage(path.parent).free) < end + SPARE:
        sys.exit(f"{path}: needs {end + SPARE >> 20} MiB, and {free >> 20} are free")
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, sizes in tensors(shape):
            left = math.prod(sizes)
            while left:
                count = min(left, SLICE)
                values = np.ones(count, np.float32)
                if len(sizes) > 1:
                    values = random.standard_normal(count, np.float32) * np.float32(DEVIATION)
                file.write(bfloat16(values).tobytes())
                left -= count


def config(shape: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": shape["layers"],
        "hidden_size": shape["d"],
        "intermediate_size": shape["ffn"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "head_dim": shape["head_dim"],
        "vocab_size": shape["vocabulary"],
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    }


def byte_tokenizer() -> dict[str, Any]:
    """Every byte as a token, by the signs that GPT-2 writes for them."""
    signs = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
    names = [chr(byte) for byte in signs]
    names += [chr(256 + i) for i in range(256 - len(signs))]
    return TOKENIZER | {
        "model": TOKENIZER["model"] | {"vocab": {name: id_ for id_, name in enumerate(names)}}
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", type=Path, help="a file of configs/models/")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape = json.loads(options.shape.read_text())
    options.folder.mkdir(parents=True, exist_ok=True)
    write_tensors(options.folder / "model.safetensors", shape, options.seed)
    (options.folder / "config.json").write_text(json.dumps(config(shape), indent=2))
    (options.folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))


if __name__ == "__main__":
    main()
