#!/usr/bin/env python3
"""Measures the tables of docs/accuracy.md, a cell (one scheme, one way to round) at a time.

A finished cell is not measured again, and a run that was stopped goes on: under --work lie packed
models, learned rotations, and for every cell a JSON file and the losses of the predicted tokens.
Without --write the tables go to stdout. Part of scripts/accuracy-table. Standard library only.
"""

from __future__ import annotations

import argparse
import array
import datetime
import fcntl
import fnmatch
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from accuracy_page import Measured, between_markers, tables

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/accuracy.md"
TOKENS = 20000
USAGE, FAILED, INTERRUPTED = 2, 1, 130


class Stop(Exception):
    """Ends the run with a message and an exit status."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Cell:
    name: str
    section: str
    weights: str  # words of the table
    step: str
    scheme: str = ""  # of a packed model
    method: str = "rtn"
    learned: bool = False
    block_format: str = ""
    base: str = ""  # the cell that this one adds a step to

    def stem(self) -> str:
        """Names its model. The scheme of a file may change, and its old model must not serve."""
        mixed = ":" in self.scheme
        return self.name + ("-" + hashlib.sha256(self.scheme.encode()).hexdigest()[:8] if mixed else "")


SECTIONS = ("Checkpoint and block formats", "W8A8", "W4A8", "W4A4", "Mixed precision")


@dataclass(frozen=True)
class Step:
    name: str
    words: str
    rotations: str
    method: str
    base: str  # the step that it builds on
    learned: bool = False
    clip: str = ""  # of the activations' ranges
    activations: tuple[int, ...] = (4, 8)  # where it is taken


STEPS = (
    Step("plain", "to nearest, no rotation", "", "rtn", ""),
    Step("rtn", "to nearest, R4", "-r4", "rtn", "plain"),
    Step("gptq", "GPTQ, R4", "-r4", "gptq", "rtn"),
    Step("rotated", "to nearest, R1 R2 R4", "-r124", "rtn", "rtn"),
    Step("rotated-gptq", "GPTQ, R1 R2 R4", "-r124", "gptq", "rotated"),
    Step("clipped-gptq", "GPTQ, R1 R2 R4, ranges of 85 %", "-r124", "gptq", "rotated-gptq", False, "c85", (4,)),
    Step("learned-gptq", "GPTQ, learned R1 R2, R4, ranges of 85 %", "-r124", "gptq", "clipped-gptq", True, "c85", (4,)),
    Step("learned-gptq", "GPTQ, learned R1 R2, R4", "-r124", "gptq", "rotated-gptq", True, "", (8,)),
)
MIXED_STEPS = ("rotated", "rotated-gptq", "learned-gptq")


def all_cells(mixed: list[Path]) -> list[Cell]:
    cells = [Cell("float", SECTIONS[0], "binary32", "the checkpoint, dequantised")]
    for block_format in ("q8_0", "q4_1", "q4_0"):
        cells.append(Cell(block_format, SECTIONS[0], block_format.upper(), "re-quantised; activations binary32",
                          block_format=block_format))  # fmt: skip
    for section, weight, activation in (("W8A8", 8, 8), ("W4A8", 4, 8), ("W4A4", 4, 4)):
        for group, weights in (("", "per channel"), ("g64", "groups of 64")):
            linears = f"w{weight}{group}a{activation}"
            for step in (step for step in STEPS if activation in step.activations):
                scheme = f"{linears}{step.clip}kv8-lm8{step.rotations}"
                cells.append(Cell(f"{linears}-{step.name}", section, weights, step.words, scheme, step.method,
                                  step.learned, base=step.base and f"{linears}-{step.base}"))  # fmt: skip
                if cells[-1].name == "w8a8-plain":
                    cells.append(Cell("w8a8-plain-p8", section, weights, f"{step.words}, 8-bit probabilities",
                                      "w8a8kv8-lm8-p8", base="w8a8-plain"))  # fmt: skip
    for path in mixed:
        for step in (step for step in STEPS if 8 in step.activations and step.name in MIXED_STEPS):
            base = step.base if step.base in MIXED_STEPS else ""
            cells.append(Cell(f"{path.stem}-{step.name}", SECTIONS[4], path.stem, step.words, scheme_in(path),
                              step.method, step.learned, base=base and f"{path.stem}-{base}"))  # fmt: skip
    names = [cell.name for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise Stop(USAGE, f"--mixed: there are two cells {twice}; give the file another name")
    return cells


def scheme_in(path: Path) -> str:
    try:
        scheme = "".join(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(USAGE, f"--mixed: cannot read {path}: {error}") from error
    if "-r124" not in scheme:
        raise Stop(USAGE, f"--mixed: {path} must hold a scheme with -r124")
    return scheme


class Bench:
    """Runs the program, and knows where the files of a cell lie."""

    def __init__(self, options: argparse.Namespace, tokens: int, text_sha256: str = ""):
        self.program, self.text, self.work = options.program, options.text, options.work
        self.tokens, self.text_sha256 = tokens, text_sha256
        self.cells = self.work / f"cells-{tokens or 'all'}"
        self.lock = None

    def take(self):
        """Makes the folder ours until this process and what it started have ended."""
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.work / ".lock", "w", encoding="utf-8")  # noqa: SIM115
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stop(FAILED, f"another run is busy in {self.work}") from None
        except OSError as error:
            raise Stop(FAILED, f"--work: cannot write to {self.work}: {error.strerror}") from error

    def run(self, *arguments: object, failure: str) -> str:
        """Its stdout; progress goes to our stderr."""
        command = [str(self.program), *map(str, arguments)]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                                  pass_fds=[self.lock.fileno()])  # fmt: skip
        except OSError as error:
            raise Stop(FAILED, f"cannot run {self.program}: {error.strerror}") from error
        if done.returncode != 0:
            raise Stop(FAILED, f"{failure}: `{' '.join(command)}` ended with status {done.returncode}")
        return done.stdout

    def record(self, cell: Cell) -> Path:
        return self.cells / f"{cell.name}.json"

    def losses(self, cell: Cell) -> Path:
        return self.cells / f"{cell.name}.f32"

    def measured(self, cell: Cell) -> Measured | None:
        """None where it is not, or not wholly."""
        try:
            read = json.loads(self.record(cell).read_text(encoding="utf-8"))
            record = {key: read[key] for key in ("scheme", "ppl", "predictions", "text_sha256", "date")}
            losses = array.array("f", self.losses(cell).read_bytes())
        except FileNotFoundError:
            return None
            if record["predictions"] != len(losses):
                return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Stop(FAILED, f"{self.record(cell)} is damaged ({error}): measure it --again") from error
        if record["scheme"] != cell.scheme:
            raise Stop(FAILED, f"{self.record(cell)} is of scheme {record['scheme']}: measure it --again")
        if self.text_sha256 and record["text_sha256"] != self.text_sha256:
            raise Stop(USAGE, f"{self.cells} was measured on another text than --text; give another --work")
        return Measured(cell, record, losses)

    def packed(self, cell: Cell) -> Path:
        return self.work / "packed" / f"{cell.stem()}.safetensors"

    def rotations(self, cell: Cell) -> Path:
        return self.work / "rotations" / f"{cell.stem()}.safetensors"

    def forget(self, cell: Cell):
        for path in (*self.work.glob(f"cells-*/{cell.name}.json"), *self.work.glob(f"cells-*/{cell.name}.f32"),
                     self.packed(cell), self.rotations(cell)):  # fmt: skip
            path.unlink(missing_ok=True)

    def pack(self, cell: Cell) -> Path:
        """Files are written aside and renamed by the program: one that is there is whole."""
        packed = self.packed(cell)
        if packed.exists():
            return packed
        rotations = []
        if cell.learned:
            learned = self.rotations(cell)
            if not learned.exists():
                learned.parent.mkdir(exist_ok=True)
                self.run("learn-rotations", "default", "--scheme", cell.scheme, "--json", "-o", learned,
                         failure=f"{cell.name}: learning rotations")  # fmt: skip
            rotations = ["--rotations", learned]
        packed.parent.mkdir(exist_ok=True)
        self.run("quantize", "default", "--scheme", cell.scheme, "--method", cell.method, *rotations, "--json",
                 "-o", packed, failure=f"{cell.name}: packing")  # fmt: skip
        return packed

    def measure(self, cell: Cell):
        begin = time.monotonic()
        if cell.block_format:
            model = ["default", "--requantize", cell.block_format, "--no-float"]
        elif cell.scheme:
            model = [self.pack(cell), "--device", "emulated"]
        else:
            model = ["default", "--float"]
        protocol = ["--tokens", self.tokens, "--protocol", "wikitext2", "--json", "--losses", self.losses(cell)]
        said = self.run("perplexity", *model, "--text", self.text, *protocol, failure=f"{cell.name}: measuring")
        report = json.loads(said)
        suffix = "" if cell.scheme or cell.block_format else "_float"
        record = {
            "cell": cell.name, "scheme": cell.scheme, "method": cell.method, "learned": cell.learned,
            "ppl": report["ppl" + suffix], "stderr": report["stderr" + suffix],
            "predictions": report["tokens"], "tokens": self.tokens, "text_sha256": self.text_sha256,
            "date": datetime.date.today().isoformat(), "seconds": round(time.monotonic() - begin, 1),
            "program": self.run("--version", failure="--version").strip(),
        }  # fmt: skip
        write_aside(self.record(cell), json.dumps(record, indent=2) + "\n")

    def modelled_speed(self, scheme: str) -> float | None:
        """Tokens a second of the default model on u280-combined by the cycle model; None where it has no answer."""
        command = [self.program, "plan", "--model", "smollm2-135m", "--accelerator", "u280-combined", "--scheme",
                   scheme, "--json"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == USAGE:  # the scheme is not one that it models
            return None
        if done.returncode != 0:
            raise Stop(FAILED, f"flexllm plan --scheme {scheme}: {done.stderr.strip()}")
        return json.loads(done.stdout)["decode"]["tokens_per_s"]


def write_aside(path: Path, text: str):
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise Stop(FAILED, f"cannot write {path}: {error.strerror}") from error


def chosen(cells: list[Cell], patterns: list[str]) -> list[Cell]:
    for pattern in patterns:
        if not fnmatch.filter([cell.name for cell in cells], pattern):
            raise Stop(USAGE, f"--only: no cell is called '{pattern}'; --list shows them")
    return [cell for cell in cells if not patterns or any(fnmatch.fnmatch(cell.name, p) for p in patterns)]


def sha256_of(text: Path | None) -> str:
    if text is None:
        raise Stop(USAGE, "--text FILE is required: the raw test split of WikiText-2, wiki.test.raw")
    try:
        return hashlib.sha256(text.read_bytes()).hexdigest()
    except OSError as error:
        raise Stop(USAGE, f"--text: cannot read {text}: {error.strerror}") from error


def run(options: argparse.Namespace):
    cells = all_cells(options.mixed)
    selected = chosen(cells, options.only)
    if options.list:
        bench = Bench(options, options.tokens)
        for cell in selected:
            print(f"{cell.name:<24} {cell.scheme:<26} {'measured' if bench.measured(cell) else ''}".rstrip())
        return
    bench = Bench(options, options.tokens, sha256_of(options.text))
    bench.take()
    for cell in selected if options.again else ():
        bench.forget(cell)
    for index, cell in enumerate(selected):
        if bench.measured(cell):
            continue
        print(f"accuracy-table: {cell.name} ({index + 1} of {len(selected)})", file=sys.stderr, flush=True)
        bench.measure(cell)
    pages = []
    for tokens in (options.tokens or TOKENS, 0):  # the whole text has its tables too, once measured
        other = Bench(options, tokens, bench.text_sha256)
        found = [measured for cell in cells if (measured := other.measured(cell))]
        if found:
            pages.append(tables(found, SECTIONS, tokens, bench.modelled_speed))
    text = "\n".join(pages)
    if options.write:
        try:
            page = between_markers(options.page.read_text(encoding="utf-8"), text)
        except (OSError, ValueError) as error:
            raise Stop(FAILED, f"{options.page}: {error}") from error
        write_aside(options.page, page)
    else:
        print(text, end="")


def main() -> int:
    parser = argparse.ArgumentParser(prog="accuracy-table", description=__doc__.split("\n\n", maxsplit=1)[0],
                                     allow_abbrev=False, epilog=__doc__.split("\n\n", maxsplit=1)[1])  # fmt: skip
    parser.add_argument("--text", type=Path, metavar="FILE", help="the text: wiki.test.raw of WikiText-2")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"use the first so many; 0: all (default {TOKENS})")
    parser.add_argument("--work", type=Path, metavar="FOLDER", default=ROOT / "build/accuracy",
                        help="where the files lie; about 8 GB for all cells (default build/accuracy)")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="measure these cells; * and ? are known")
    parser.add_argument("--again", action="store_true",
                        help="with --only: forget these cells, with their packed models, and measure them anew")  # fmt: skip
    parser.add_argument("--mixed", nargs="+", type=Path, default=[], metavar="FILE",
                        help="also schemes of mixed precision, each from a file that holds its name")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the cells, and which are measured")
    parser.add_argument("--write", action="store_true", help="put the tables of what is measured into the page")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="the page (default docs/accuracy.md)")
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/flexllm", metavar="FILE",
                        help="the flexllm to run (default: the release build, which is made first)")  # fmt: skip
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which also ends what was started
    try:
        if options.tokens < 0:
            raise Stop(USAGE, "--tokens cannot be negative")
        if options.again and not options.only:
            raise Stop(USAGE, "--again wants --only: what to measure anew")
        run(options)
    except Stop as stop:
        print(f"accuracy-table: {stop}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("accuracy-table: interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
