#!/usr/bin/env python3
"""Writes the top functions of an accelerator's kernels, one C++ file each.

    kernel_tops.py configs/accelerators/u280-combined.json OUT_DIR

A top has one argument per arena and one interface directive per argument, as many as the accelerator
has, and calls the composition of kernels/tops/. The same file is compiled by v++ and, for C
simulation, by the host's compiler. Python 3 standard library only; CMake runs it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from accelerator import (Accelerator, ConfigError, FAMILIES, KernelConfig, load_accelerator,
                         write_if_changed)

SHAPE = {"prefill": "PrefillShape<Build>", "decode": "DecodeShape<Build>"}
ARRAYS = {"temporal": 1, "spatial": 2}  # types of arrays that a composition takes
TYPE = {"desc": "const Word*", "model": "const Word*", "result": "Word*", "scratch": "Word*",
        "w": "const Word*", "kv": "Word*"}


def family(argument: str) -> str:
    return argument.rstrip("0123456789")


def check_rotation(accelerator: Accelerator, kernel: KernelConfig):
    """Arena i must be on port i mod ports: that is how the modules deal tiles and pages."""
    for name in FAMILIES:
        ports = kernel.streams(name)
        first = [kernel.port_of(f"{name}{i}").name for i in range(ports)]
        for i in range(accelerator.arenas[name]):
            if kernel.port_of(f"{name}{i}").name != first[i % ports]:
                raise ConfigError(f"{accelerator.name}: {kernel.name}: {name}{i} is not on the "
                                  f"port of {name}{i % ports}")


def wrapped(prefix: str, items: list[str], suffix: str) -> str:
    """A list in lines of at most 100 columns, continued under its first item."""
    lines, line = [], prefix
    for i, item in enumerate(items):
        text = item + ("," if i + 1 < len(items) else suffix)
        gap = "" if line.endswith("(") or line.endswith("{") or not line.strip() else " "
        if len(line) + len(gap) + len(text) > 100:
            lines.append(line)
            line, gap = " " * len(prefix), ""
        line += gap + text
    return "\n".join(lines + [line])


def top(accelerator: Accelerator, kernel: KernelConfig) -> str:
    check_rotation(accelerator, kernel)
    name, arguments = kernel.name, accelerator.arguments
    build = [f"  static constexpr uint32_t {key} = accelerator::maxima::{key};"
             for key in accelerator.maxima]
    build += [f"  static constexpr uint32_t {key} = accelerator::{name}::{key};"
              for key in [*kernel.parallelism, "weight_ports", "kv_ports"]
              if key not in accelerator.maxima]
    build += [f"  static constexpr uint32_t {key} = accelerator::{key};"
              for key in ("weight_streams", "kv_streams")]
    build += [f"  static constexpr uint32_t head_parallel = accelerator::{name}::heads;"]
    ports = [f"  HLS_MEMORY_PORT({a}, {kernel.port_of(a).name})" for a in arguments]
    arenas = {f: [a for a in arguments if family(a) == f and a != f] for f in FAMILIES}
    return "\n".join([
        f"// Kernel '{name}' of accelerator '{accelerator.name}': made by scripts/kernel_tops.py.",
        f'#include "accelerators/{accelerator.identifier}.h"',
        f'#include "kernels/tops/{kernel.composition}.h"',
        '#include "kernels/tops/shapes.h"',
        "",
        "namespace {",
        "",
        f"namespace accelerator = flexllm::accelerator::{accelerator.identifier};",
        "using namespace flexllm::kernels;",
        "",
        "struct Build {", *build, "};",
        "",
        "}  // namespace",
        "",
        wrapped(f'extern "C" void {name}(',
                [f"{TYPE[family(a)]} {a}" for a in arguments], ") {"),
        *ports,
        "  HLS_CONTROL_PORT",
        f"  typedef {kernel.composition.capitalize()}Composition<",
        f"      {', '.join([SHAPE[name]] + ['LinearArray<Build>'] * ARRAYS[kernel.composition])}>",
        "      Composition;",
        wrapped(f"  const Arenas<{len(arenas['w'])}> weights = {{{{", arenas["w"], "}};"),
        wrapped(f"  const PageArenas<{len(arenas['kv'])}> pages = {{{{", arenas["kv"], "}};"),
        "  run_launch<Composition>(desc, model, result, scratch, weights, pages);",
        "}", ""])


def simulation(accelerator: Accelerator) -> str:
    """Calls of the tops with the buffers of a card, for kernels/tops/csim.h."""
    arguments = accelerator.arguments

    def value(argument: str) -> str:
        kind = family(argument)
        if argument == kind:
            return f"words_of(buffers.{argument})"
        member = "weights" if kind == "w" else "kv"
        return f"words_of(buffers.{member}[{argument[len(kind):]}])"

    out = [f"// C simulation of accelerator '{accelerator.name}': made by scripts/kernel_tops.py.",
           '#include "kernels/tops/csim.h"', "", "using flexllm::kernels::Word;", ""]
    for kernel in accelerator.kernels:
        out += [wrapped(f'extern "C" void {kernel.name}(',
                        [f"{TYPE[family(a)]} {a}" for a in arguments], ");")]
    out += ["", "namespace flexllm::kernels::csim {"]
    for kernel in accelerator.kernels:
        out += ["", f"uint32_t run_{kernel.name}(const twin::Buffers& buffers) {{",
                f"  if (!has_arenas(buffers, {accelerator.arenas['w']}, "
                f"{accelerator.arenas['kv']})) return refuse(buffers);",
                "  const twin::FlushDenormals float_mode;",
                wrapped(f"  {kernel.name}(", [value(a) for a in arguments], ");"),
                "  return status_of(buffers);", "}"]
    return "\n".join(out + ["", "}  // namespace flexllm::kernels::csim", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        accelerator = load_accelerator(options.config)
        for kernel in accelerator.kernels:
            write_if_changed(options.out / f"{kernel.name}.cpp", top(accelerator, kernel))
        write_if_changed(options.out / "csim.cpp", simulation(accelerator))
    except (ConfigError, OSError) as error:
        print(f"kernel_tops.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
