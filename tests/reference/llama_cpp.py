"""Perplexity by llama.cpp itself, of the checkpoint in the block formats that we compare with.

    python -m tests.reference.llama_cpp --gguf MODEL.gguf --text FILE [--types f32 q8_0 q4_0] [--chunks N]

A manual cross-check of `flexllm perplexity --protocol llama.cpp`. Needs the PyPI package `xllamacpp`,
which exports llama.cpp's C interface, and some 600 MB of disk in $TMPDIR. For each type the
checkpoint's weights are dequantised and written as such a file: linears in that type, embedding and
lm_head in Q8_0 (all F32 for f32).
"""

import argparse
import ctypes
import importlib.util
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

WINDOW = 512


class Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class Parameters(ctypes.Structure):
    """llama_model_params or llama_context_params, of which only the first fields are touched: both
    travel in memory, so a struct that is too long is as good as the right one."""

    _fields_ = [("first", ctypes.c_uint32 * 4), ("rest", ctypes.c_uint8 * 1008)]


def load_library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None:
        raise SystemExit("the PyPI package xllamacpp is not installed")
    library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("*.so"))))
    for name in ("llama_model_default_params", "llama_context_default_params"):
        getattr(library, name).restype = Parameters
    library.llama_model_load_from_file.restype = ctypes.c_void_p
    library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Parameters]
    library.llama_init_from_model.restype = ctypes.c_void_p
    library.llama_init_from_model.argtypes = [ctypes.c_void_p, Parameters]
    library.llama_decode.argtypes = [ctypes.c_void_p, Batch]
    library.llama_get_logits.restype = ctypes.POINTER(ctypes.c_float)
    library.llama_get_logits.argtypes = [ctypes.c_void_p]
    library.llama_get_memory.restype = ctypes.c_void_p
    library.llama_get_memory.argtypes = [ctypes.c_void_p]
    library.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
    library.llama_model_get_vocab.restype = ctypes.c_void_p
    library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    library.llama_vocab_n_tokens.argtypes = [ctypes.c_void_p]
    library.llama_vocab_get_add_bos.argtypes = [ctypes.c_void_p]
    library.llama_vocab_get_add_bos.restype = ctypes.c_bool
    library.llama_vocab_bos.argtypes = [ctypes.c_void_p]
    library.llama_tokenize.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
        ctypes.c_int32, ctypes.c_bool, ctypes.c_bool,
    ]  # fmt: skip
    return library


def convert(source: GGUFReader, kind: GGMLQuantizationType, path: Path) -> None:
    """The weights of `source` in another type."""
    architecture = source.fields["general.architecture"].contents()
    writer = GGUFWriter(path, architecture)
    for field in source.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub_type = field.types[1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in source.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        outside = tensor.name in ("token_embd.weight", "output.weight")
        if values.ndim < 2 or kind == GGMLQuantizationType.F32:
            writer.add_tensor(tensor.name, values)
            continue
        to = GGMLQuantizationType.Q8_0 if outside else kind
        writer.add_tensor(tensor.name, quantize(values, to), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def log_probabilities(
    library: ctypes.CDLL, path: Path, text: bytes, chunks: int | None
) -> Iterator[float]:
    model = library.llama_model_load_from_file(
        str(path).encode(), library.llama_model_default_params()
    )
    parameters = library.llama_context_default_params()
    parameters.first[:3] = [WINDOW, WINDOW, WINDOW]  # n_ctx, n_batch, n_ubatch
    context = library.llama_init_from_model(model, parameters)
    vocab = library.llama_model_get_vocab(model)
    size = library.llama_vocab_n_tokens(vocab)
    tokens = (ctypes.c_int32 * (len(text) + 8))()
    count = library.llama_tokenize(vocab, text, len(text), tokens, len(tokens), True, False)
    ids = np.ctypeslib.as_array(tokens)[:count].copy()
    for at in list(range(0, count - WINDOW + 1, WINDOW))[:chunks]:
        window = ids[at : at + WINDOW].copy()
        if library.llama_vocab_get_add_bos(vocab):
            window[0] = library.llama_vocab_bos(vocab)
        wanted = np.ones(WINDOW, np.int8)
        batch = Batch(
            WINDOW,
            window.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            logits=wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        library.llama_memory_clear(library.llama_get_memory(context), True)
        if library.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        logits = np.ctypeslib.as_array(library.llama_get_logits(context), (WINDOW, size))
        for row in range(WINDOW // 2, WINDOW - 1):
            values = logits[row].astype(np.float64)
            largest = values.max()
            sum_of = largest + math.log(np.exp(values - largest).sum())
            yield values[window[row + 1]] - sum_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--types", nargs="+", default=["f32", "q8_0", "q4_1", "q4_0"])
    parser.add_argument("--chunks", type=int, help="windows to compute; default: all")
    args = parser.parse_args()
    library = load_library()
    reader = GGUFReader(args.gguf)
    text = args.text.read_bytes().removesuffix(b"\n")
    for name in args.types:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            convert(reader, GGMLQuantizationType[name.upper()], Path(file.name))
            values = list(log_probabilities(library, Path(file.name), text, args.chunks))
        figure = math.exp(-sum(values) / len(values))
        print(f"{name}: perplexity {figure:.4f} over {len(values)} tokens", flush=True)


if __name__ == "__main__":
    main()
