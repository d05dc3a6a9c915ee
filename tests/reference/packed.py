"""docs/packed-model.md: one safetensors file, read and written without any library for it.

safetensors: a little-endian uint64 length, that many bytes of JSON (per tensor: dtype, shape and
data_offsets behind the JSON; strings under `__metadata__`), then the tensors.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .buffers import Weights, read_model, weight_streams, write_model
from .fields import CONTRACT_VERSION
from .layout import Bytes
from .numerics import F32, Floats

FORMAT = "flexllm-packed"
# CBOR of {"kind": "bpe", "pre_tokenizer": "", "tokenizer_json": "", "sentencepiece_model": ""}: a
# tokenizer without tokens, for models that are only given ids.
NO_TOKENIZER = b"\xa4" + b"".join(
    bytes([0x60 + len(key)]) + key + bytes([0x60 + len(value)]) + value
    for key, value in (
        (b"kind", b"bpe"),
        (b"pre_tokenizer", b""),
        (b"tokenizer_json", b""),
        (b"sentencepiece_model", b""),
    )
)
_DTYPES = {"U8": "u1", "F16": "<f2", "F32": "<f4"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}


class BadPacked(ValueError):
    """A file that is cut, damaged or of another contract version."""


@dataclass(frozen=True)
class Packed:
    model: Bytes
    arenas: list[Bytes]
    embedding: np.ndarray  # as stored, F16 or F32
    tokenizer: bytes = NO_TOKENIZER
    metadata: Mapping[str, str] = field(default_factory=dict)

    def weights(self) -> Weights:
        return read_model(self.model, self.arenas)

    def inputs(self) -> Floats:
        """Input rows of all tokens, [vocab][hidden]."""
        return self.embedding.astype(F32)


def load_tensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a safetensors file, mapped, and its metadata."""
    data = np.memmap(path, np.uint8, "r")
    if len(data) < 8:
        raise BadPacked(f"{path}: shorter than its first field")
    (size,) = struct.unpack("<Q", data[:8].tobytes())
    if size > len(data) - 8:
        raise BadPacked(f"{path}: the header ends behind the file")
    header = json.loads(data[8 : 8 + size].tobytes())
    metadata = header.pop("__metadata__", {})
    body = data[8 + size :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        if not begin <= end <= len(body):
            raise BadPacked(f"{path}: {name} lies outside the file")
        if end - begin != dtype.itemsize * int(np.prod(entry["shape"], dtype=np.int64)):
            raise BadPacked(f"{path}: {name} has another size than its shape says")
        raw = body[begin:end]
        if begin % dtype.itemsize:
            raw = raw.copy()
        tensors[name] = raw.view(dtype).reshape(entry["shape"])
    return tensors, metadata


def save_tensors(
    path: Path | str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)  # so that the tensors start on a word
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())


def load(path: Path | str, check: bool = True) -> Packed:
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise BadPacked(f"{path}: format is {metadata.get('format')!r}")
    if metadata.get("contract_version") != str(CONTRACT_VERSION):
        raise BadPacked(f"{path}: contract version {metadata.get('contract_version')!r}")
    if check:
        for name, sum_of in json.loads(metadata["checksums"]).items():
            if name not in tensors:
                raise BadPacked(f"{path}: {name} is missing")
            if hashlib.sha256(tensors[name]).hexdigest() != sum_of:
                raise BadPacked(f"{path}: {name} is damaged")
    model = np.ascontiguousarray(tensors["model"])
    arenas = [tensors[f"arena.{stream:02d}"] for stream in range(weight_streams(model))]
    tokenizer = tensors["tokenizer"].tobytes()
    return Packed(model, arenas, tensors["embedding"], tokenizer, metadata)


def pack(
    weights: Weights,
    streams: int,
    embedding: np.ndarray,
    metadata: Mapping[str, str],
    tokenizer: bytes = NO_TOKENIZER,
) -> Packed:
    model, arenas = write_model(weights, streams)
    return Packed(model, list(arenas), embedding, tokenizer, metadata)


def save(path: Path | str, packed: Packed) -> None:
    tensors = {f"arena.{stream:02d}": arena for stream, arena in enumerate(packed.arenas)}
    tensors["model"] = packed.model
    tensors["embedding"] = packed.embedding
    tensors["tokenizer"] = np.frombuffer(packed.tokenizer, np.uint8)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    sums = {name: hashlib.sha256(tensor).hexdigest() for name, tensor in tensors.items()}
    metadata = {
        **packed.metadata,
        "format": FORMAT,
        "contract_version": str(CONTRACT_VERSION),
        "checksums": json.dumps(sums),
    }
    save_tensors(path, tensors, metadata)
