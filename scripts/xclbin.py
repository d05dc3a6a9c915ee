"""The AXLF container (.xclbin) of an accelerator: written without xclbinutil, and read back.

Layout, from the public header <xrt/xclbin.h>: an 8-byte magic, the signature length (-1: none),
28 + 256 reserved bytes, a unique id, a 152-byte header, one 40-byte header per section, then the
sections, each on an 8-byte boundary.
"""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

SECTION = {
    "BITSTREAM": 0, "EMBEDDED_METADATA": 2, "MEM_TOPOLOGY": 6, "CONNECTIVITY": 7, "IP_LAYOUT": 8,
    "CLOCK_FREQ_TOPOLOGY": 11, "BUILD_METADATA": 14, "USER_METADATA": 16,
    "GROUP_TOPOLOGY": 26, "GROUP_CONNECTIVITY": 27,
}
MEMORY_KIND = {"DDR4": 1, "HBM": 6}
CONTROL_AP_CHAIN = 1
SCALAR_BYTES = {"int": 4, "unsigned int": 4, "float": 4, "long": 8, "unsigned long": 8}
HEADER_BYTES = 456
SECTION_HEADER_BYTES = 40
FIRST_ARGUMENT_OFFSET = 0x10  # the control registers come first
COMPUTE_UNIT_BASE = 0x800000
COMPUTE_UNIT_RANGE = 0x10000


@dataclass
class Memory:
    tag: str
    kind: str
    base: int
    bytes: int
    used: bool = True


@dataclass
class Argument:
    name: str
    type: str  # "T*" for an address, else a key of SCALAR_BYTES
    port: str = ""
    bits: int = 512

    @property
    def is_pointer(self) -> bool:
        return self.type.endswith("*")

    @property
    def bytes(self) -> int:
        return 8 if self.is_pointer else SCALAR_BYTES[self.type]


@dataclass
class ComputeUnit:
    name: str
    banks: dict[str, str]  # argument -> memory tag


@dataclass
class Kernel:
    name: str
    arguments: list[Argument]
    compute_units: list[ComputeUnit]


@dataclass
class Design:
    name: str
    platform_vbnv: str
    platform: str
    fpga_device: str
    shell_uuid: str
    clock_mhz: int
    memories: list[Memory]
    kernels: list[Kernel]
    user_metadata: dict = field(default_factory=dict)


def register_offsets(arguments: list[Argument]) -> list[int]:
    """Offsets in the s_axilite register file: 64-bit arguments take 12 bytes, others 8."""
    offsets, offset = [], FIRST_ARGUMENT_OFFSET
    for argument in arguments:
        offsets.append(offset)
        offset += 12 if argument.bytes == 8 else 8
    return offsets


def _compute_units(design: Design) -> list[tuple[Kernel, ComputeUnit]]:
    return [(kernel, unit) for kernel in design.kernels for unit in kernel.compute_units]


def _mem_topology(memories: list[Memory]) -> bytes:
    out = struct.pack("<i4x", len(memories))
    for memory in memories:
        out += struct.pack("<BB6xQQ16s", MEMORY_KIND[memory.kind], memory.used,
                           memory.bytes // 1024, memory.base, memory.tag.encode())
    return out


def _ip_layout(design: Design) -> bytes:
    units = _compute_units(design)
    out = struct.pack("<i4x", len(units))
    for index, (kernel, unit) in enumerate(units):
        properties = 1 | index << 1 | CONTROL_AP_CHAIN << 8  # interrupt enabled, its id, protocol
        base = COMPUTE_UNIT_BASE + index * COMPUTE_UNIT_RANGE
        out += struct.pack("<IIQ64s", 1, properties, base, f"{kernel.name}:{unit.name}".encode())
    return out


def _connectivity(design: Design) -> bytes:
    tags = {memory.tag: index for index, memory in enumerate(design.memories)}
    rows = [(argument_index, unit_index, tags[unit.banks[argument.name]])
            for unit_index, (kernel, unit) in enumerate(_compute_units(design))
            for argument_index, argument in enumerate(kernel.arguments) if argument.is_pointer]
    return struct.pack("<i", len(rows)) + b"".join(struct.pack("<iii", *row) for row in rows)


def _clocks(mhz: int) -> bytes:
    out = struct.pack("<h", 2)
    for frequency, kind, name in ((mhz, 1, b"DATA_CLK"), (500, 2, b"KERNEL_CLK")):
        out += struct.pack("<HB5x128s", frequency, kind, name)
    return out


def _kernel_xml(kernel: Kernel, bases: dict[str, int]) -> list[str]:
    out = [f'    <kernel name={quoteattr(kernel.name)} language="c" type="pl" attributes="" '
           f'vlnv="flexllm:hls:{kernel.name}:1.0" preferredWorkGroupSizeMultiple="0" '
           'workGroupSize="1" interrupt="true" hwControlProtocol="ap_ctrl_chain">']
    ports = {a.port or f"M_AXI_{a.name.upper()}": a.bits for a in kernel.arguments if a.is_pointer}
    for port, bits in ports.items():
        out.append(f'     <port name={quoteattr(port)} mode="master" range="0xFFFFFFFFFFFFFFFF" '
                   f'dataWidth="{bits}" portType="addressable" base="0x0"/>')
    out.append('     <port name="S_AXI_CONTROL" mode="slave" range="0x1000" dataWidth="32" '
               'portType="addressable" base="0x0"/>')
    for index, (argument, offset) in enumerate(
            zip(kernel.arguments, register_offsets(kernel.arguments))):
        port = argument.port or f"M_AXI_{argument.name.upper()}"
        out.append(
            f'     <arg name={quoteattr(argument.name)} id="{index}" '
            f'addressQualifier="{int(argument.is_pointer)}" '
            f'port="{port if argument.is_pointer else "S_AXI_CONTROL"}" '
            f'size="{argument.bytes:#x}" offset="{offset:#x}" hostOffset="0x0" '
            f'hostSize="{argument.bytes:#x}" type={quoteattr(argument.type)}/>')
    for unit in kernel.compute_units:
        out.append(f'     <instance name={quoteattr(unit.name)}><addrRemap '
                   f'base="{bases[unit.name]:#x}" range="{COMPUTE_UNIT_RANGE:#x}" '
                   'port="S_AXI_CONTROL"/></instance>')
    return out + ["    </kernel>"]


def _metadata(design: Design) -> bytes:
    bases = {unit.name: COMPUTE_UNIT_BASE + index * COMPUTE_UNIT_RANGE
             for index, (_, unit) in enumerate(_compute_units(design))}
    out = ['<?xml version="1.0" encoding="UTF-8"?>', f"<project name={quoteattr(design.name)}>",
           f' <platform vendor="flexllm" boardid="" name={quoteattr(design.platform)} '
           'featureRomTime="0">',
           '  <version major="202210" minor="1"/>', "  <description/>",
           f'  <device name="fpga0" fpgaDevice={quoteattr(design.fpga_device)} addrWidth="0">',
           '   <core name="OCL_REGION_0" target="bitstream" type="clc_region" clockFreq="0MHz" '
           'numComputeUnits="60">',
           "    <kernelClocks>",
           f'     <clock port="DATA_CLK" frequency="{design.clock_mhz}.000000MHz"/>',
           '     <clock port="KERNEL_CLK" frequency="500.000000MHz"/>', "    </kernelClocks>"]
    for kernel in design.kernels:
        out += _kernel_xml(kernel, bases)
    return "\n".join(out + ["   </core>", "  </device>", " </platform>", "</project>", ""]).encode()


def write(design: Design, kernels_library: bytes) -> bytes:
    """The container. Its uuid is a hash of its content, so that equal content is equal."""
    memory, connections = _mem_topology(design.memories), _connectivity(design)
    build = {"build_metadata": {"xclbin": {"generated_by": {"name": "flexllm accelerator.py"}}}}
    sections = [
        ("BITSTREAM", kernels_library), ("MEM_TOPOLOGY", memory),
        ("IP_LAYOUT", _ip_layout(design)), ("CONNECTIVITY", connections),
        ("CLOCK_FREQ_TOPOLOGY", _clocks(design.clock_mhz)),
        ("EMBEDDED_METADATA", _metadata(design)), ("BUILD_METADATA", json.dumps(build).encode()),
        ("USER_METADATA", json.dumps(design.user_metadata, indent=1).encode()),
        ("GROUP_TOPOLOGY", memory), ("GROUP_CONNECTIVITY", connections)]
    offset = HEADER_BYTES + SECTION_HEADER_BYTES * len(sections)
    headers, body = b"", b""
    for kind, data in sections:
        padding = -offset % 8
        offset += padding
        headers += struct.pack("<I16s4xQQ", SECTION[kind], kind.lower().encode()[:15], offset,
                               len(data))
        body += bytes(padding) + data
        offset += len(data)
    identity = uuid.UUID(bytes=hashlib.sha256(headers + body).digest()[:16], version=4).bytes
    header = struct.pack("<QQQHBBHH16s64s16s16sI4x", offset, 0, 0, 0, 2, 13, 1, 0,
                         uuid.UUID(design.shell_uuid).bytes, design.platform_vbnv.encode(),
                         identity, b"", len(sections))
    top = struct.pack("<8si28s256sQ", b"xclbin2", -1, b"\xff" * 28, b"\xff" * 256, 0)
    return top + header + headers + body


def sections(image: bytes) -> dict[str, bytes]:
    """The sections of a container by name."""
    if image[:8] != b"xclbin2\0":
        raise ValueError("not an xclbin")
    names = {number: name for name, number in SECTION.items()}
    (count,) = struct.unpack_from("<I", image, HEADER_BYTES - 8)
    found = {}
    for index in range(count):
        kind, _, offset, size = struct.unpack_from(
            "<I16s4xQQ", image, HEADER_BYTES + index * SECTION_HEADER_BYTES)
        found[names[kind]] = image[offset:offset + size]
    return found


def connections(image: bytes) -> set[tuple[str, int, str]]:
    """(compute unit, argument index, memory tag) of every connection of a container."""
    parts = sections(image)
    text = lambda raw: raw.split(b"\0")[0].decode()
    (count,) = struct.unpack_from("<i", parts["MEM_TOPOLOGY"])
    tags = [text(parts["MEM_TOPOLOGY"][8 + 40 * i + 24:8 + 40 * i + 40]) for i in range(count)]
    (count,) = struct.unpack_from("<i", parts["IP_LAYOUT"])
    units = [text(parts["IP_LAYOUT"][8 + 80 * i + 16:8 + 80 * i + 80]) for i in range(count)]
    (count,) = struct.unpack_from("<i", parts["CONNECTIVITY"])
    rows = (struct.unpack_from("<iii", parts["CONNECTIVITY"], 4 + 12 * i) for i in range(count))
    return {(units[unit].split(":")[1], argument, tags[bank]) for argument, unit, bank in rows}
