"""Reads configuration files, and what configs/devices/ says of a board: a part of accelerator.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import xclbin


class ConfigError(Exception):
    """Something is wrong in a configuration file; the message names the file and the key."""


class Node:
    """A JSON object that knows where it stands and whether all of its keys were read."""

    def __init__(self, path: Path, value, where: str = ""):
        self.path, self.value, self.where = path, value, where
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {where or 'the file'} is not an object")
        self.unread = set(value)

    def fail(self, key: str, why: str):
        raise ConfigError(f"{self.path}: {self.where + '.' if self.where else ''}{key}: {why}")

    def get(self, key: str, kind: type, default=None):
        self.unread.discard(key)
        if key not in self.value:
            if default is None:
                self.fail(key, "is missing")
            return default
        value = self.value[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            self.fail(key, f"must be {'a whole number' if kind is int else 'a ' + kind.__name__}")
        return value

    def positive(self, key: str) -> int:
        value = self.get(key, int)
        if value < 1:
            self.fail(key, "must be at least 1")
        return value

    def number(self, key: str) -> int:
        text = self.get(key, str)
        try:
            return int(text, 0)
        except ValueError:
            self.fail(key, f"'{text}' is not a number")

    def node(self, key: str) -> "Node":
        return self.child(key, self.get(key, dict))

    def child(self, key: str, value) -> "Node":
        return Node(self.path, value, f"{self.where}.{key}" if self.where else key)

    def done(self):
        if self.unread:
            self.fail(sorted(self.unread)[0], "is not a known key")


@dataclass
class Device:
    name: str
    board: str
    part: str
    fpga_device: str
    shell: str
    platform: str
    shell_uuid: str
    idcode: int
    pci: dict[str, int]
    axi_ports: int
    memories: list[xclbin.Memory]
    slrs: set[str]  # dies that designs are placed on

    @property
    def emulated_vbnv(self) -> str:
        """Not the real shell's name, so that neither card takes the other's bitstream."""
        return "emulated_" + self.shell.split("_", 1)[1]


def read(path: Path) -> Node:
    def unique(pairs):
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"{path}: {key}: appears twice in one object")
        return dict(pairs)

    try:
        return Node(path, json.loads(path.read_text(), object_pairs_hook=unique))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}: {error.msg}") from error


def load_slrs(node: Node, count: int) -> set[str]:
    """Dies of memory banks: one for all, one for each, or none. For the resource model."""
    if not isinstance(node.value.get("slr"), list):
        return {node.get("slr", str, "")} - {""}
    slrs = node.get("slr", list)
    if len(slrs) != count or not all(isinstance(slr, str) for slr in slrs):
        node.fail("slr", f"must be a die, or a list of {count}")
    return set(slrs)


def load_device(path: Path) -> Device:
    root = read(path)
    memories, dies = [], set()
    for index, value in enumerate(root.get("memories", list)):
        node = root.child(f"memories[{index}]", value)
        tag, kind = node.get("tag", str), node.get("kind", str)
        count, size, base = node.positive("count"), node.positive("bytes"), node.number("base")
        if kind not in xclbin.MEMORY_KIND:
            node.fail("kind", f"'{kind}' is not one of {', '.join(xclbin.MEMORY_KIND)}")
        if size % 4096:
            node.fail("bytes", "must be a multiple of 4096")
        if node.get("gb_per_s", float) <= 0:  # sustained, by one bank; for the cycle model
            node.fail("gb_per_s", "must be above 0")
        dies |= load_slrs(node, count)
        node.done()
        memories += [xclbin.Memory(f"{tag}[{i}]", kind, base + i * size, size)
                     for i in range(count)]
    ordered = sorted(memories, key=lambda memory: memory.base)
    for low, high in zip(ordered, ordered[1:]):
        if low.base + low.bytes > high.base:
            root.fail("memories", f"{low.tag} and {high.tag} overlap")
    pci = root.node("pci")
    slots = {}
    for index, value in enumerate(root.get("resources", list)):
        node = root.child(f"resources[{index}]", value)
        slot = node.get("slot", str)
        if slot in slots:
            node.fail("slot", f"'{slot}' appears twice")
        slots[slot] = node.get("slr", str)
        for key in ("lut", "dsp", "bram18", "uram"):
            node.positive(key)
        node.done()
    device = Device(
        **{key: root.get(key, str) for key in ("name", "board", "part", "fpga_device", "shell",
                                               "platform", "shell_uuid")},
        idcode=root.number("idcode"),
        pci={key: pci.number(key) for key in ("vendor", "device", "subsystem_vendor",
                                              "subsystem_device")},
        axi_ports=root.positive("axi_ports"), memories=memories, slrs=set(slots.values()))
    pci.done()
    root.done()
    if not slots:
        root.fail("resources", "names no slot")
    for die in sorted(dies - device.slrs):
        root.fail("memories", f"there is no slot on '{die}'")
    if device.name != path.stem:
        root.fail("name", f"'{device.name}' does not match the file's name")
    return device
