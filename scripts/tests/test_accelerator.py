"""Tests of scripts/accelerator.py: what it makes of each shipped accelerator agrees, and wrong
configurations are refused with the file and the key. Run by ctest, or by hand."""

import copy
import json
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import accelerator  # noqa: E402
import xclbin  # noqa: E402

ACCELERATORS = sorted((ROOT / "configs" / "accelerators").glob("*.json"))
FAKE_LIBRARY = b"\x7fELF" + bytes(60)


def expected_connections(path: Path) -> dict[tuple[str, str], str]:
    """(compute unit, argument) -> tag, from the JSON alone."""
    config = json.loads(path.read_text())

    def tags(text):
        name, first, last = re.fullmatch(r"(\w+)\[(\d+):?(\d*)\]", text).groups()
        return [f"{name}[{i}]" for i in range(int(first), int(last or first) + 1)]

    out = {}
    for kernel in config["kernels"].values():
        banks = config["banks"] | kernel.get("banks", {})
        for argument, text in banks.items():
            for i, tag in enumerate(tags(text)):
                name = f"{argument}{i}" if argument in ("w", "kv") else argument
                out[kernel["compute_unit"], name] = tag
    return out


class Shipped(unittest.TestCase):
    def test_all_are_there(self):
        self.assertEqual({path.stem for path in ACCELERATORS},
                         {"u280-combined", "u280-decode", "u280-paper", "u280-prefill", "v80"})

    def test_link_file_bitstream_and_memory_map_agree_with_the_json(self):
        for path in ACCELERATORS:
            with self.subTest(path.stem):
                expected = expected_connections(path)
                loaded = accelerator.load_accelerator(path)

                link = accelerator.link_config(loaded)
                sp = dict(re.findall(r"^sp=(\S+):(\S+)$", link, re.M))
                self.assertEqual({tuple(k.split(".")): v for k, v in sp.items()}, expected)
                self.assertEqual(len(re.findall(r"^sp=", link, re.M)), len(expected))
                units = {unit for unit, _ in expected}
                self.assertEqual({line.split(":")[2] for line in
                                  re.findall(r"^nk=.*$", link, re.M)}, units)
                self.assertEqual({line.split(":")[1] for line in
                                  re.findall(r"^freqHz=.*$", link, re.M)}, units)

                image = xclbin.write(accelerator.design(loaded), FAKE_LIBRARY)
                names = {k.compute_unit: list(k.banks) for k in loaded.kernels}
                self.assertEqual({(unit, names[unit][index]): tag for unit, index, tag in
                                  xclbin.connections(image)}, expected)

                memory_map = json.loads(xclbin.sections(image)["USER_METADATA"])
                self.assertEqual(memory_map, accelerator.memory_map(loaded))
                self.assertEqual({(k["compute_unit"], a["name"]): a["tag"]
                                  for k in memory_map["kernels"] for a in k["arguments"]},
                                 expected)
                for kernel in memory_map["kernels"]:
                    for argument in kernel["arguments"]:
                        self.assertEqual(memory_map["banks"][argument["bank"]]["tag"],
                                         argument["tag"])

    def test_both_kernels_take_the_same_arguments(self):
        for path in ACCELERATORS:
            loaded = accelerator.load_accelerator(path)
            order = ["desc", "model", "result", "scratch"]
            order += [f"w{i}" for i in range(loaded.arenas["w"])]
            order += [f"kv{i}" for i in range(loaded.arenas["kv"])]
            for kernel in loaded.kernels:
                self.assertEqual(list(kernel.banks), order)

    def test_weights_and_pages_are_shared_but_what_a_launch_writes_is_not(self):
        loaded = accelerator.load_accelerator(ROOT / "configs/accelerators/u280-combined.json")
        prefill, decode = loaded.kernels
        for argument in prefill.banks:
            shared = argument == "model" or argument[0] in "wk"
            self.assertEqual(prefill.banks[argument] == decode.banks[argument], shared, argument)

    def test_ports_fit_the_device(self):
        for path in ACCELERATORS:
            loaded = accelerator.load_accelerator(path)
            ports = sum(len(kernel.ports) for kernel in loaded.kernels)
            self.assertLessEqual(ports, loaded.device.axi_ports)

    def test_header_compiles_as_cpp14(self):
        for path in ACCELERATORS:
            with self.subTest(path.stem), tempfile.TemporaryDirectory() as folder:
                loaded = accelerator.load_accelerator(path)
                source = Path(folder) / "header.cpp"
                checks = "".join(
                    f"static_assert(flexllm::accelerator::{loaded.identifier}::{text}, \"\");\n"
                    for text in [f"weight_streams == {loaded.arenas['w']}",
                                 f"maxima::d == {loaded.maxima['d']}",
                                 f"{loaded.kernels[0].name}::heads > 0"])
                (Path(folder) / "header.h").write_text(accelerator.header(loaded))
                source.write_text('#include "header.h"\n' + checks)
                subprocess.run(["c++", "-std=c++14", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                                source], check=True)

    def test_bitstream_depends_on_content_alone(self):
        loaded = accelerator.load_accelerator(ACCELERATORS[0])
        first = xclbin.write(accelerator.design(loaded), FAKE_LIBRARY)
        self.assertEqual(first, xclbin.write(accelerator.design(loaded), FAKE_LIBRARY))
        self.assertNotEqual(first, xclbin.write(accelerator.design(loaded), FAKE_LIBRARY + b"x"))


class Wrong(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        root = Path(self.folder.name)
        (root / "devices").mkdir()
        (root / "accelerators").mkdir()
        self.device = root / "devices" / "u280.json"
        self.device.write_text((ROOT / "configs/devices/u280.json").read_text())
        self.path = root / "accelerators" / "u280-combined.json"
        self.config = json.loads((ROOT / "configs/accelerators/u280-combined.json").read_text())

    def assert_refused(self, change, *words):
        config = copy.deepcopy(self.config)
        change(config)
        self.path.write_text(json.dumps(config))
        with self.assertRaises(accelerator.ConfigError) as caught:
            accelerator.load_accelerator(self.path)
        for word in (str(self.path), *words):
            self.assertIn(word, str(caught.exception))

    def test_unchanged_is_right(self):
        self.path.write_text(json.dumps(self.config))
        accelerator.load_accelerator(self.path)

    def test_keys(self):
        self.assert_refused(lambda c: c.pop("clock_mhz"), "clock_mhz", "is missing")
        self.assert_refused(lambda c: c.update(colour="red"), "colour", "not a known key")
        self.assert_refused(lambda c: c["maxima"].pop("ffn"), "maxima.ffn", "is missing")
        self.assert_refused(lambda c: c["maxima"].update(batch=0), "maxima.batch", "at least 1")
        self.assert_refused(lambda c: c["maxima"].update(batch="16"), "maxima.batch", "number")
        self.assert_refused(lambda c: c["maxima"].update(batch=True), "maxima.batch", "number")
        self.assert_refused(lambda c: c["kernels"]["decode"].update(x=1), "kernels.decode.x")
        self.assert_refused(lambda c: c["kernels"].update(sampler={}), "kernels.sampler")
        self.assert_refused(lambda c: c.update(name="other"), "name", "does not match")
        self.assert_refused(lambda c: c.update(device="u999"), "device", "u999.json")

    def test_parallelism(self):
        def refused(kernel, values, *words):
            self.assert_refused(lambda c: c["kernels"][kernel]["parallelism"].update(values),
                                f"kernels.{kernel}.parallelism.{next(iter(values))}", *words)
        refused("prefill", {"tp": 12}, "12 does not divide 16")
        refused("decode", {"tp": 32}, "32 does not divide 16")
        refused("decode", {"wp": 96}, "96 is not one of 8, 16, 32, 64, 128")
        refused("prefill", {"wp": 4}, "4 is not one of")
        refused("decode", {"bp": 24}, "24 arrays are no multiple of the 16 weight ports")
        refused("prefill", {"outputs": 5}, "5 does not divide 32")
        refused("prefill", {"heads": 0}, "at least 1")
        refused("prefill", {"panel": 1024}, "1024 is more than the 512 rows of a launch")
        refused("prefill", {"panel": 96}, "96 is no power of two from 16 on")
        refused("decode", {"panel": 8}, "8 is no power of two from 16 on")
        self.assert_refused(lambda c: c["kernels"]["prefill"].update(composition="spatial"),
                            "kernels.prefill.parallelism.panel", "keeps all rows")
        refused("prefill", {"ffn": 3}, "not a known key")
        self.assert_refused(lambda c: c["kernels"]["decode"]["parallelism"].pop("kv"),
                            "kernels.decode.parallelism.kv", "is missing")

    def test_banks(self):
        self.assert_refused(lambda c: c["banks"].update(model="HBM[32]"), "banks.model", "HBM[32]")
        self.assert_refused(lambda c: c["banks"].update(model="HBM"), "banks.model", "not a bank")
        self.assert_refused(lambda c: c["banks"].update(model="HBM[1:2]"), "banks.model", "2 banks")
        self.assert_refused(lambda c: c["banks"].update(w="HBM[5:4]"), "banks.w", "0 banks")
        self.assert_refused(lambda c: c["banks"].update(kv="HBM[15:18]"), "HBM[15]", "whole bank")
        self.assert_refused(lambda c: c["banks"].pop("kv"), "banks.kv", "is missing")
        self.assert_refused(lambda c: c["banks"].update(q="HBM[1]"), "banks.q", "argument")
        self.assert_refused(lambda c: c["kernels"]["prefill"]["banks"].update(w="HBM[24:27]"),
                            "kernels.prefill.banks", "shared")

    def test_ports(self):
        def ports(config):
            return config["kernels"]["prefill"]["ports"]
        self.assert_refused(lambda c: ports(c)[3].update(bundles=4), "33 AXI ports", "has 31")
        self.assert_refused(lambda c: ports(c)[2].update(bundles=3), "ports[2].bundles", "divide")
        self.assert_refused(lambda c: ports(c)[0]["arguments"].append("w0"), "'w0' is on two ports")
        self.assert_refused(lambda c: ports(c)[0]["arguments"].pop(), "'result' is on no port")
        self.assert_refused(lambda c: ports(c)[1].update(name="io"), "port 'io' appears twice")
        self.assert_refused(lambda c: ports(c)[1].update(bits=100), "ports[1].bits", "width")
        self.assert_refused(lambda c: ports(c)[2].update(arguments="x"), "'x' is not one of")

    def test_text(self):
        self.path.write_text("{")
        with self.assertRaisesRegex(accelerator.ConfigError, "line 1"):
            accelerator.load_accelerator(self.path)
        self.path.write_text('{"name": "a", "name": "b"}')
        with self.assertRaisesRegex(accelerator.ConfigError, "name: appears twice"):
            accelerator.load_accelerator(self.path)

    def test_device(self):
        device = json.loads(self.device.read_text())
        device["memories"][1]["base"] = "0x1000"
        self.device.write_text(json.dumps(device))
        with self.assertRaisesRegex(accelerator.ConfigError, "overlap"):
            accelerator.load_device(self.device)

    def test_dies(self):
        self.assert_refused(lambda c: c["kernels"]["decode"].update(slr="SLR3"),
                            "kernels.decode.slr", "has no slot on 'SLR3'")
        good = json.loads(self.device.read_text())

        def refused(change, words):
            device = copy.deepcopy(good)
            change(device)
            self.device.write_text(json.dumps(device))
            with self.assertRaisesRegex(accelerator.ConfigError, words):
                accelerator.load_device(self.device)

        refused(lambda d: d["memories"][0].update(slr="SLR3"), "no slot on 'SLR3'")
        refused(lambda d: d["memories"][1].update(slr=["SLR0"]), "a list of 2")
        refused(lambda d: d["memories"][1].update(slr=["SLR0", 1]), "a list of 2")
        refused(lambda d: d["memories"][1].update(slr=0), "memories.1..slr: must be")
        refused(lambda d: d["resources"][1].update(slot="X0Y0"), "'X0Y0' appears twice")
        refused(lambda d: d["resources"].clear(), "resources: names no slot")


if __name__ == "__main__":
    unittest.main()
