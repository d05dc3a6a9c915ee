"""Float weights as a Hugging Face folder, for what reads checkpoints."""

import json
from pathlib import Path

import numpy as np

from . import packed
from .float_model import FloatWeights
from .numerics import F32, Floats
from .tiny import Spec

# Two tokens, "a" and "b".
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
}


def unrotated(weights: FloatWeights, down: Floats) -> Floats:
    """The down projection of the checkpoint whose rotated form `down` is."""
    block = weights.shape.hadamard_block
    if not block:
        return down
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    split = down.reshape(len(down), -1, block).astype(np.float64)
    return (split @ matrix / block**0.5).reshape(down.shape).astype(F32)


def write_checkpoint(folder: Path, spec: Spec, weights: FloatWeights) -> None:
    """A Hugging Face folder of the weights."""
    shape = weights.shape
    split = shape.heads * shape.head_dim, (shape.heads + shape.kv_heads) * shape.head_dim
    tensors = {
        "model.embed_tokens.weight": weights.embedding,
        "model.norm.weight": weights.final_norm,
        "lm_head.weight": weights.lm_head,
    }
    for index, layer in enumerate(weights.layers):
        prefix = f"model.layers.{index}."
        tensors[prefix + "input_layernorm.weight"] = layer.attention_norm
        tensors[prefix + "post_attention_layernorm.weight"] = layer.ffn_norm
        for name, rows in zip("qkv", np.split(layer.qkv, split)):
            tensors[f"{prefix}self_attn.{name}_proj.weight"] = rows
        if layer.qkv_bias is not None:
            for name, values in zip("qkv", np.split(layer.qkv_bias, split)):
                tensors[f"{prefix}self_attn.{name}_proj.bias"] = values
        if layer.q_norm is not None:
            tensors[prefix + "self_attn.q_norm.weight"] = layer.q_norm
            tensors[prefix + "self_attn.k_norm.weight"] = layer.k_norm
        tensors[prefix + "self_attn.o_proj.weight"] = layer.o
        tensors[prefix + "mlp.gate_proj.weight"] = layer.gate
        tensors[prefix + "mlp.up_proj.weight"] = layer.up
        tensors[prefix + "mlp.down_proj.weight"] = unrotated(weights, layer.down)
    arrays = {name: np.ascontiguousarray(tensor, F32) for name, tensor in tensors.items()}
    packed.save_tensors(folder / "model.safetensors", arrays, {"format": "pt"})
    config = {
        "architectures": ["Qwen3ForCausalLM" if spec.qk_norm else "LlamaForCausalLM"],
        "num_hidden_layers": spec.layers,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ffn,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": 1e-5,
        "attention_bias": spec.attention_bias,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
