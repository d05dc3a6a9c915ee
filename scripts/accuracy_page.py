"""The tables of docs/accuracy.md from measured cells: bytes, ratios and their errors, Markdown.

Imported by accuracy_table.py. Standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

BEGIN = "<!-- accuracy-table: begin (written by scripts/accuracy-table --write) -->"
END = "<!-- accuracy-table: end -->"

# The default model: layers, and (outputs, inputs) of a layer's matrices; gate and up are padded apart.
LAYERS = 30
MATRICES = {"qkv": [(960, 576)], "o": [(576, 576)], "gate_up": [(1536, 576), (1536, 576)], "down": [(576, 1536)]}
LM_HEAD = (49152, 576)
BLOCK_BYTES = {"q8_0": 34, "q4_1": 20, "q4_0": 18}  # of 32 weights, in llama.cpp's formats


@dataclass
class Measured:
    cell: Any
    record: dict
    losses: Sequence[float]


def tile_bytes(outputs: int, inputs: int, bits: int, grouped: bool) -> int:
    """A matrix without a bias in docs/weight-layout.md: whole tiles of 32 rows, words of 64 bytes."""
    multipliers = (math.ceil(inputs / 64) + 1) // 2 if grouped else 0
    return math.ceil(outputs / 32) * 64 * (4 + multipliers + inputs // 4 * bits // 4)


def weight_bytes(scheme: str) -> tuple[int, int]:
    """Bytes that a decoded token reads for the matrices of all layers, and for lm_head."""
    name, _, listed = scheme.partition(":")
    match = re.match(r"w([48])(g64)?a[48]s?(?:c\d+)?kv8-lm([48])", name)
    if not match:
        raise ValueError(f"no such scheme: {scheme}")
    precision = {(layer, kind): (int(match[1]), bool(match[2])) for layer in range(LAYERS) for kind in MATRICES}
    for item in filter(None, listed.split(",")):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?\.(\w+)=w([48])(g64)?a[48]s?(?:c\d+)?", item)
        if not found or found[3] not in MATRICES:
            raise ValueError(f"no such exception: {item}")
        for layer in range(int(found[1]), int(found[2] or found[1]) + 1):
            precision[layer, found[3]] = (int(found[4]), bool(found[5]))
    layers = sum(tile_bytes(*shape, *how) for (_, kind), how in precision.items() for shape in MATRICES[kind])
    return layers, tile_bytes(*LM_HEAD, int(match[3]), bool(match[2]))


def block_format_bytes(block_format: str) -> tuple[int, int]:
    """Likewise for a block format; lm_head is Q8_0."""
    weights = LAYERS * sum(outputs * inputs for shapes in MATRICES.values() for outputs, inputs in shapes)
    return weights // 32 * BLOCK_BYTES[block_format], LM_HEAD[0] * LM_HEAD[1] // 32 * BLOCK_BYTES["q8_0"]


def ratio(losses: Sequence[float], reference: Sequence[float]) -> tuple[float, float]:
    """Of two perplexities on the same tokens, and the standard error of the paired differences, through exp."""
    if len(losses) != len(reference):
        raise ValueError(f"{len(losses)} losses and {len(reference)} cannot be paired")
    differences = [a - b for a, b in zip(losses, reference, strict=True)]
    count = len(differences)
    mean = math.fsum(differences) / count
    variance = math.fsum((d - mean) ** 2 for d in differences) / max(count - 1, 1)
    value = math.exp(mean)
    return value, value * math.sqrt(variance / count)


def number(value: float) -> str:
    """Five digits, thousands parted."""
    return f"{value:,.{max(0, 4 - int(math.log10(max(value, 1))))}f}"


def with_error(value: tuple[float, float]) -> str:
    digits = 4 if value[0] < 10 else 2 if value[0] < 100 else 0
    return f"{value[0]:,.{digits}f} ± {value[1]:,.{digits}f}"


def row(measured: Measured, cells: dict[str, Measured], speed: Callable[[str], float | None]) -> str:
    cell, losses = measured.cell, measured.losses
    over_float = gain = size = rate = ""
    if cell.name != "float" and "float" in cells:
        over_float = with_error(ratio(losses, cells["float"].losses))
    if cell.base in cells:
        value, error = ratio(losses, cells[cell.base].losses)
        gain = f"{100 * (value - 1):+.2f} % ± {100 * error:.2f} %"
        if abs(value - 1) < 2 * error:
            gain += ", no difference"
    if cell.scheme or cell.block_format:
        layers, lm_head = weight_bytes(cell.scheme) if cell.scheme else block_format_bytes(cell.block_format)
        size = f"{layers / 1e6:.1f} + {lm_head / 1e6:.1f}"
    if cell.scheme:
        tokens_per_s = speed(cell.scheme)
        rate = f"{tokens_per_s:.0f}" if tokens_per_s else "not modelled"
    fields = (f"`{cell.name}`", cell.weights, cell.step, number(measured.record["ppl"]), over_float, gain, size, rate)
    return "| " + " | ".join(fields) + " |"


HEAD = """| cell | weights | how | perplexity | over float | over the step before | MB a token | tokens/s |
|---|---|---|---:|---:|---:|---:|---:|"""


def tables(found: list[Measured], sections: Sequence[str], tokens: int, speed: Callable[[str], float | None]) -> str:
    """Markdown of the cells `found`, which are in the order of the page."""
    cells = {measured.cell.name: measured for measured in found}
    dates = sorted({measured.record["date"] for measured in found})
    predictions = {measured.record["predictions"] for measured in found}
    if len(predictions) != 1:
        raise ValueError(f"cells predict different numbers of tokens: {sorted(predictions)}")
    what = f"first {tokens:,} tokens" if tokens else "whole text"
    lines = [
        f"**The {what} of WikiText-2's raw test split**, {predictions.pop():,} predictions, `wikitext2` protocol.",
        f"Perplexities are **measured**, {' to '.join(dates[:1] + dates[1:][-1:])}, on the emulated card; float and the",
        "block formats in the float model. GPTQ and learning look at 8 x 512 tokens that the model wrote itself.",
        "`±` is the standard error of the paired differences, carried through the exponential; a step within two",
        "of them is called no difference. MB a token are the bytes of weights that a decoded token reads in the",
        "linear layers, layers + lm_head, **computed** from the shapes and [the layout](weight-layout.md), or",
        "llama.cpp's blocks. Tokens/s are **modelled**: the default model at the same scheme on `u280-combined`, by",
        "`flexllm plan`.",
        "",
        "```",
        f"scripts/accuracy-table --text wiki.test.raw --tokens {tokens} --write",
        "```",
        "",
    ]
    for section in sections:
        rows = [row(measured, cells, speed) for measured in found if measured.cell.section == section]
        if rows:
            lines += [f"**{section}**", "", HEAD, *rows, ""]
    return "\n".join(lines)


def between_markers(page: str, text: str) -> str:
    """The page with `text` between its two markers."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"lacks the markers '{BEGIN}' and '{END}', once each in this order")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{text.rstrip()}\n\n{END}{after}"
