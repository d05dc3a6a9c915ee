#!/usr/bin/env python3
"""One description of an accelerator, and everything that is made from it.

    accelerator.py configs/accelerators/u280-combined.json --header H --vitis DIR \\
                   --memory-map M.json --xclbin OUT.xclbin --kernels LIBRARY.so
    accelerator.py --shells OUT.h configs/devices/u280.json ...

The JSON names the device, the clock, the compile-time maxima, the memory bank of every kernel
argument and how arguments share AXI ports. Outputs: the kernels' constexpr header, the v++ files,
the host's memory map and the emulated bitstream (docs/emulated-card.md). Python 3 standard library
only; CMake runs it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import xclbin
from device_config import ConfigError, Device, Node, load_device, read

KERNELS = ("prefill", "decode")
COMPOSITIONS = ("temporal", "spatial")  # files of kernels/tops/
SINGLE_ARGUMENTS = ("desc", "model", "result", "scratch")
FAMILIES = ("w", "kv")  # arrays of arenas: w0.., kv0..
MAXIMA = ("d", "ffn", "heads", "kv_heads", "head_dim", "batch", "prefill_rows", "context",
          "vocabulary")
BLOCK_ROWS = 16  # rows of the launch that the arrays take together
TILE_ROWS = 32  # output rows of a weight tile
WEIGHTS_PER_CYCLE = (8, 16, 32, 64, 128)  # parts of a plane word


@dataclass
class Port:
    name: str
    bits: int
    arguments: list[str]


@dataclass
class KernelConfig:
    name: str
    compute_unit: str
    clock_mhz: int
    slr: str
    composition: str  # of kernels/tops/
    parallelism: dict[str, int]
    ports: list[Port]
    banks: dict[str, str]  # argument -> memory tag

    def port_of(self, argument: str) -> Port:
        return next(port for port in self.ports if argument in port.arguments)

    def streams(self, family: str) -> int:
        return sum(1 for port in self.ports if re.fullmatch(family + r"\d+", port.arguments[0]))


@dataclass
class Accelerator:
    name: str
    device: Device
    clock_mhz: int
    maxima: dict[str, int]
    arguments: list[str]
    arenas: dict[str, int]
    kernels: list[KernelConfig]

    @property
    def identifier(self) -> str:
        return self.name.replace("-", "_")

    def bank_index(self, tag: str) -> int:
        return next(i for i, m in enumerate(self.device.memories) if m.tag == tag)


def load_banks(node: Node, device: Device) -> dict[str, list[str]]:
    """argument or family -> tags. "HBM[0:3]" is HBM[0], HBM[1], HBM[2], HBM[3]."""
    tags = {memory.tag for memory in device.memories}
    banks = {}
    for key in list(node.value):
        if key not in SINGLE_ARGUMENTS + FAMILIES:
            node.fail(key, "is not a kernel argument")
        text = node.get(key, str)
        match = re.fullmatch(r"(\w+)\[(\d+)(?::(\d+))?\]", text)
        if not match:
            node.fail(key, f"'{text}' is not a bank, as in HBM[3] or HBM[0:15]")
        first, last = int(match[2]), int(match[3] or match[2])
        banks[key] = [f"{match[1]}[{i}]" for i in range(first, last + 1)]
        if not banks[key] or key in SINGLE_ARGUMENTS and len(banks[key]) != 1:
            node.fail(key, f"'{text}' names {len(banks[key])} banks")
        for tag in banks[key]:
            if tag not in tags:
                node.fail(key, f"device '{device.name}' has no bank {tag}")
    return banks


def expand(banks: dict[str, list[str]]) -> dict[str, str]:
    """argument -> tag, in the order of the kernels' argument list."""
    out = {name: banks[name][0] for name in SINGLE_ARGUMENTS}
    for family in FAMILIES:
        out |= {f"{family}{i}": tag for i, tag in enumerate(banks[family])}
    return out


def load_ports(kernel: Node, arguments: list[str]) -> list[Port]:
    ports: list[Port] = []
    for index, value in enumerate(kernel.get("ports", list)):
        node = kernel.child(f"ports[{index}]", value)
        name, bits = node.get("name", str), node.positive("bits")
        if bits not in (32, 64, 128, 256, 512):
            node.fail("bits", f"{bits} is not a width of an AXI port")
        if isinstance(node.value.get("arguments"), str):
            family = node.get("arguments", str)
            members = [a for a in arguments if re.fullmatch(family + r"\d+", a)]
            if family not in FAMILIES:
                node.fail("arguments", f"'{family}' is not one of {', '.join(FAMILIES)}")
            bundles = node.positive("bundles")
            if len(members) % bundles:
                node.fail("bundles", f"{bundles} does not divide the {len(members)} arenas")
            # Arenas rotate over the ports, as tiles do over the arenas.
            ports += [Port(f"{name}{i}", bits, members[i::bundles]) for i in range(bundles)]
        else:
            ports.append(Port(name, bits, node.get("arguments", list)))
        node.done()
    names = [port.name for port in ports]
    placed = [argument for port in ports for argument in port.arguments]
    for name in names:
        if names.count(name) > 1:
            kernel.fail("ports", f"port '{name}' appears twice")
    for argument in placed:
        if argument not in arguments:
            kernel.fail("ports", f"'{argument}' is not a kernel argument")
        if placed.count(argument) > 1:
            kernel.fail("ports", f"argument '{argument}' is on two ports")
    for argument in arguments:
        if argument not in placed:
            kernel.fail("ports", f"argument '{argument}' is on no port")
    return ports


def load_parallelism(node: Node, weight_ports: int, rows: int) -> dict[str, int]:
    """tp: rows of the launch; bp: arrays; wp: weights of an array; heads, kv: attention, per KV
    port; outputs: dequantised. All per cycle. panel: rows that share a pass of the weights, of
    the `rows` that a launch may have."""
    out = {key: node.positive(key) for key in ("tp", "bp", "wp", "heads", "kv", "outputs")}
    out["panel"] = node.positive("panel") if "panel" in node.value else rows
    node.done()
    panel = out["panel"]
    if panel > rows:
        node.fail("panel", f"{panel} is more than the {rows} rows of a launch")
    if panel < rows and (panel % BLOCK_ROWS or panel & (panel - 1)):
        node.fail("panel", f"{panel} is no power of two from {BLOCK_ROWS} on")
    if BLOCK_ROWS % out["tp"]:
        node.fail("tp", f"{out['tp']} does not divide {BLOCK_ROWS}")
    if out["wp"] not in WEIGHTS_PER_CYCLE:
        node.fail("wp", f"{out['wp']} is not one of {', '.join(map(str, WEIGHTS_PER_CYCLE))}")
    if out["bp"] % weight_ports:
        node.fail("bp", f"{out['bp']} arrays are no multiple of the {weight_ports} weight ports")
    if TILE_ROWS % out["outputs"]:
        node.fail("outputs", f"{out['outputs']} does not divide {TILE_ROWS}")
    return out


def load_kernel(name: str, node: Node, shared: dict[str, list[str]], device: Device,
                clock_mhz: int, rows: int) -> KernelConfig:
    banks = dict(shared)
    if "banks" in node.value:
        own = load_banks(node.node("banks"), device)
        for family in FAMILIES:
            if family in own and own[family] != shared[family]:
                node.fail("banks", f"'{family}' arenas are shared by the kernels")
        banks |= own
    placed = expand(banks)
    kernel = KernelConfig(
        name=name, compute_unit=node.get("compute_unit", str),
        clock_mhz=node.get("clock_mhz", int, clock_mhz), slr=node.get("slr", str, ""),
        composition=node.get("composition", str, "temporal"),
        parallelism={}, ports=load_ports(node, list(placed)), banks=placed)
    kernel.parallelism = load_parallelism(node.node("parallelism"), kernel.streams("w"), rows)
    if kernel.slr and kernel.slr not in device.slrs:
        node.fail("slr", f"device '{device.name}' has no slot on '{kernel.slr}'")
    if kernel.composition not in COMPOSITIONS:
        node.fail("composition", f"'{kernel.composition}' is not one of {', '.join(COMPOSITIONS)}")
    if kernel.composition == "spatial" and kernel.parallelism["panel"] < rows:
        node.fail("parallelism.panel", "a spatial composition keeps all rows of a launch: attention "
                  "runs ahead of the rows that it sends")
    node.done()
    return kernel


def load_accelerator(path: Path) -> Accelerator:
    root = read(path)
    name, device_name = root.get("name", str), root.get("device", str)
    if name != path.stem:
        root.fail("name", f"'{name}' does not match the file's name")
    device_path = path.resolve().parent.parent / "devices" / f"{device_name}.json"
    if not device_path.exists():
        root.fail("device", f"there is no {device_path}")
    device = load_device(device_path)
    clock = root.positive("clock_mhz")
    maxima_node = root.node("maxima")
    maxima = {key: maxima_node.positive(key) for key in MAXIMA}
    maxima_node.done()
    banks_node = root.node("banks")
    banks = load_banks(banks_node, device)
    for key in SINGLE_ARGUMENTS + FAMILIES:
        if key not in banks:
            banks_node.fail(key, "is missing")
    for family in FAMILIES:
        for tag in banks[family]:
            users = [key for key in banks for used in banks[key] if used == tag]
            if len(users) > 1:
                banks_node.fail(family, f"{tag} is given to {' and '.join(users)}: an arena takes "
                                        "a whole bank")
    kernels_node = root.node("kernels")
    rows = {"prefill": maxima["prefill_rows"], "decode": maxima["batch"]}
    kernels = [load_kernel(key, kernels_node.node(key), banks, device, clock, rows[key])
               for key in KERNELS if key in kernels_node.value]
    kernels_node.done()
    root.done()
    if not kernels:
        root.fail("kernels", "names no kernel")
    ports = sum(len(kernel.ports) for kernel in kernels)
    if ports > device.axi_ports:
        root.fail("kernels", f"use {ports} AXI ports; device '{device.name}' has "
                             f"{device.axi_ports}")
    units = [kernel.compute_unit for kernel in kernels]
    if len(set(units)) != len(units):
        root.fail("kernels", "two kernels have the same compute unit name")
    return Accelerator(name, device, clock, maxima, list(kernels[0].banks),
                       {family: len(banks[family]) for family in FAMILIES}, kernels)


def header(accelerator: Accelerator) -> str:
    out = [f"// Accelerator '{accelerator.name}': made by scripts/accelerator.py from "
           "configs/accelerators/.", "#pragma once", "", "namespace flexllm {",
           "namespace accelerator {", f"namespace {accelerator.identifier} {{", "",
           f'constexpr const char* name = "{accelerator.name}";',
           f'constexpr const char* device = "{accelerator.device.name}";',
           f"constexpr int clock_mhz = {accelerator.clock_mhz};",
           f"constexpr int weight_streams = {accelerator.arenas['w']};  // arguments w0..",
           f"constexpr int kv_streams = {accelerator.arenas['kv']};  // arguments kv0..", "",
           "// Largest sizes that the kernels take; true sizes are run-time fields.",
           "namespace maxima {"]
    out += [f"constexpr int {key} = {value};" for key, value in accelerator.maxima.items()]
    out += ["}  // namespace maxima"]
    for kernel in accelerator.kernels:
        out += ["", f"namespace {kernel.name} {{",
                f"constexpr int clock_mhz = {kernel.clock_mhz};"]
        out += [f"constexpr bool spatial = {str(kernel.composition == 'spatial').lower()};"]
        out += [f"constexpr int {key} = {value};" for key, value in kernel.parallelism.items()]
        for family, word in (("w", "weight"), ("kv", "kv")):
            out += [f"constexpr int {word}_ports = {kernel.streams(family)};",
                    f"constexpr int {word}_port_bits = {kernel.port_of(family + '0').bits};"]
        out += [f"}}  // namespace {kernel.name}"]
    return "\n".join(out + ["", f"}}  // namespace {accelerator.identifier}",
                            "}  // namespace accelerator", "}  // namespace flexllm", ""])


def compile_config(accelerator: Accelerator, kernel: KernelConfig) -> str:
    return "\n".join([f"platform={accelerator.device.platform}", f"kernel={kernel.name}", "",
                      "[hls]", f"clock={kernel.clock_mhz * 1_000_000}:{kernel.name}", ""])


def link_config(accelerator: Accelerator) -> str:
    out = [f"platform={accelerator.device.platform}", "", "[connectivity]"]
    out += [f"nk={k.name}:1:{k.compute_unit}" for k in accelerator.kernels]
    out += [f"slr={k.compute_unit}:{k.slr}" for k in accelerator.kernels if k.slr]
    out += [f"sp={k.compute_unit}.{argument}:{tag}" for k in accelerator.kernels
            for argument, tag in k.banks.items()]
    out += ["", "[clock]"]
    out += [f"freqHz={k.clock_mhz * 1_000_000}:{k.compute_unit}" for k in accelerator.kernels]
    return "\n".join(out + [""])


def memory_map(accelerator: Accelerator) -> dict:
    device = accelerator.device
    return {
        "accelerator": accelerator.name,
        "device": device.name,
        "clock_mhz": accelerator.clock_mhz,
        "weight_streams": accelerator.arenas["w"],
        "kv_streams": accelerator.arenas["kv"],
        "maxima": accelerator.maxima,
        "banks": [{"index": i, "tag": m.tag, "kind": m.kind, "base": m.base, "bytes": m.bytes}
                  for i, m in enumerate(device.memories)],
        "kernels": [{
            "name": kernel.name,
            "compute_unit": kernel.compute_unit,
            "clock_mhz": kernel.clock_mhz,
            "parallelism": kernel.parallelism,
            "arguments": [{"index": i, "name": argument, "bank": accelerator.bank_index(tag),
                           "tag": tag, "port": kernel.port_of(argument).name}
                          for i, (argument, tag) in enumerate(kernel.banks.items())],
        } for kernel in accelerator.kernels],
    }


def design(accelerator: Accelerator) -> xclbin.Design:
    device = accelerator.device
    kernels = [xclbin.Kernel(
        kernel.name,
        [xclbin.Argument(a, "void*", f"M_AXI_{kernel.port_of(a).name.upper()}",
                         kernel.port_of(a).bits) for a in kernel.banks],
        [xclbin.ComputeUnit(kernel.compute_unit, kernel.banks)])
        for kernel in accelerator.kernels]
    return xclbin.Design(accelerator.name, device.emulated_vbnv, device.platform,
                         device.fpga_device, device.shell_uuid, accelerator.clock_mhz,
                         device.memories, kernels, memory_map(accelerator))


def shells(devices: list[Device]) -> str:
    """A C++ table of the boards that the emulated card can be."""
    out = ["// Boards of configs/devices/: made by scripts/accelerator.py.", "#pragma once", "",
           '#include "host/card/shell.h"', "", "namespace flexllm::card {", ""]
    for device in devices:
        banks = ", ".join(f"{{{m.base:#x}ull, {m.bytes:#x}ull}}" for m in device.memories)
        out += [f"inline constexpr BankRange {device.name}_banks[] = {{{banks}}};"]
    out += ["", "inline constexpr Shell shells[] = {"]
    for device in devices:
        strings = [device.name, device.board, device.fpga_device, device.emulated_vbnv,
                   device.shell_uuid]
        numbers = [device.idcode, *device.pci.values()]
        out += ["    {" + ", ".join([json.dumps(s) for s in strings] + [f"{n:#x}" for n in numbers])
                + f", {device.name}_banks}},"]
    return "\n".join(out + ["};", "", "}  // namespace flexllm::card", ""])


def write_if_changed(path: Path, content: str | bytes):
    data = content.encode() if isinstance(content, str) else content
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("configs", nargs="+", type=Path,
                        help="one accelerator (or, with --shells, the devices)")
    parser.add_argument("--header", type=Path, help="write the kernels' constexpr header")
    parser.add_argument("--vitis", type=Path, metavar="DIR",
                        help="write <kernel>.compile.cfg and link.cfg for v++")
    parser.add_argument("--memory-map", type=Path, help="write the host's memory map (JSON)")
    parser.add_argument("--xclbin", type=Path, help="write an emulated bitstream")
    parser.add_argument("--kernels", type=Path, help="shared library of its kernels")
    parser.add_argument("--shells", type=Path, help="write the emulated card's table of boards")
    options = parser.parse_args()
    try:
        if options.shells:
            write_if_changed(options.shells, shells([load_device(p) for p in options.configs]))
            return 0
        if len(options.configs) != 1:
            raise ConfigError("give one accelerator at a time")
        accelerator = load_accelerator(options.configs[0])
        if options.header:
            write_if_changed(options.header, header(accelerator))
        if options.vitis:
            for kernel in accelerator.kernels:
                write_if_changed(options.vitis / f"{kernel.name}.compile.cfg",
                                 compile_config(accelerator, kernel))
            write_if_changed(options.vitis / "link.cfg", link_config(accelerator))
        if options.memory_map:
            write_if_changed(options.memory_map,
                             json.dumps(memory_map(accelerator), indent=1) + "\n")
        if options.xclbin:
            if not options.kernels:
                raise ConfigError("--xclbin needs --kernels")
            write_if_changed(options.xclbin,
                             xclbin.write(design(accelerator), options.kernels.read_bytes()))
    except (ConfigError, OSError) as error:
        print(f"accelerator.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
