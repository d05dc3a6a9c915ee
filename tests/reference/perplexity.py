"""Perplexity of the quantised reference and of a float model on given token ids.

    python -m tests.reference.perplexity --ids IDS.npy [--packed MODEL.safetensors] [--gguf FILE]
        [--float] [--round w8a8] [--window 2048] [--windows N]

The text is cut into windows of `--window` tokens that do not overlap; each token but the first of
its window is predicted from the tokens before it in the window. The last window may be shorter.
The figure is exp(-mean log-probability) over the predicted tokens, printed with their number.

Models: --packed is the quantised reference on that file and, with --float, its dequantised weights
in float arithmetic; --gguf is the checkpoint in float and, with --round, its weights rounded to
nearest (no rotation or calibration) in the quantised reference.
"""

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from . import packed
from .float_model import FloatModel, blocks, from_quantized, load_gguf, round_weights
from .layout import Precision
from .model import Model, log_sum_exp, target_logprob
from .numerics import Floats

Logprobs = Callable[[Sequence[int]], np.ndarray]
CHUNK = 512


def quantized_logprobs(model: Model, embedding: Floats) -> Logprobs:
    def logprobs(ids: Sequence[int]) -> np.ndarray:
        tokens = np.asarray(ids)
        cache = model.new_cache()
        parts = []
        for at in range(0, len(tokens) - 1, CHUNK):
            where = np.arange(at, min(at + CHUNK, len(tokens) - 1))
            rows = embedding[tokens[where]]
            residual = model.run(rows, np.zeros(len(where), np.int64), where, cache)
            for block in blocks(len(where)):
                logits = model.logits(model.final_norm(residual[block]))
                _, lse = log_sum_exp(logits)
                parts.append(target_logprob(logits, lse, tokens[where[block] + 1]))
        return np.concatenate(parts).astype(np.float64)

    return logprobs


def perplexity(
    logprobs: Logprobs, ids: Sequence[int], window: int = 2048, windows: int | None = None
) -> tuple[float, int]:
    """The figure and the number of predicted tokens."""
    starts = range(0, max(len(ids) - 1, 0), window)[:windows]
    values = [logprobs(ids[at : at + window]) for at in starts]
    if not values:
        raise ValueError("a perplexity needs two tokens")
    every = np.concatenate(values)
    return math.exp(-float(every.mean())), len(every)


def parse_scheme(text: str) -> Precision:
    found = re.fullmatch(r"w([48])a([48])(g?)", text)
    if not found:
        raise argparse.ArgumentTypeError("expected w4a4, w4a8, w8a4 or w8a8, with g for groups")
    return Precision(int(found[1]), int(found[2]), grouped=found[3] == "g")


def read_ids(path: Path) -> list[int]:
    ids = np.load(path) if path.suffix == ".npy" else json.loads(path.read_text())
    return [int(token) for token in np.asarray(ids).reshape(-1)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Perplexity on given token ids.")
    parser.add_argument("--ids", type=Path, required=True, help="npy or JSON array of token ids")
    parser.add_argument("--packed", type=Path, help="packed model")
    parser.add_argument("--float", action="store_true", help="also its dequantised weights")
    parser.add_argument("--gguf", type=Path, help="checkpoint for the float model")
    parser.add_argument("--round", type=parse_scheme, help="round the checkpoint: w8a8, w4a8g, ...")
    parser.add_argument("--window", type=int, default=2048, help="tokens")
    parser.add_argument("--windows", type=int, help="stop after so many windows; default: all")
    args = parser.parse_args()
    if not args.packed and not args.gguf:
        parser.error("nothing to measure: give --packed or --gguf")
    ids = read_ids(args.ids)

    def report(name: str, logprobs: Logprobs) -> None:
        start = time.monotonic()
        value, count = perplexity(logprobs, ids, args.window, args.windows)
        seconds = time.monotonic() - start
        print(f"{name}: perplexity {value:.4f} over {count} tokens, {seconds:.1f} s", flush=True)

    if args.packed:
        file = packed.load(args.packed)
        weights, inputs = file.weights(), file.inputs()
        name = file.metadata.get("scheme", "packed")
        report(f"quantised {name}", quantized_logprobs(Model(weights), inputs))
        if args.float:
            report("dequantised", FloatModel(from_quantized(weights, inputs)).logprobs)
    if args.gguf:
        source = load_gguf(args.gguf)
        report("float", FloatModel(source).logprobs)
        if args.round:
            rounded = round_weights(source, args.round, Precision(8, 8))
            report("rounded", quantized_logprobs(Model(rounded), source.embedding))


if __name__ == "__main__":
    main()
