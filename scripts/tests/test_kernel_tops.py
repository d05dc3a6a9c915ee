"""Tests of scripts/kernel_tops.py: every argument of a kernel is declared, bound to its port and handed
on once, in the order of the launch contract; arenas rotate over the ports. Run by ctest, or by hand."""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import accelerator  # noqa: E402
import kernel_tops  # noqa: E402

ACCELERATORS = sorted((ROOT / "configs" / "accelerators").glob("*.json"))


class Tops(unittest.TestCase):
    def each(self):
        for path in ACCELERATORS:
            loaded = accelerator.load_accelerator(path)
            for kernel in loaded.kernels:
                with self.subTest(accelerator=path.stem, kernel=kernel.name):
                    yield loaded, kernel, kernel_tops.top(loaded, kernel)

    def test_arguments_stand_in_the_order_of_the_contract(self):
        for loaded, kernel, text in self.each():
            expected = ["desc", "model", "result", "scratch"]
            expected += [f"w{i}" for i in range(loaded.arenas["w"])]
            expected += [f"kv{i}" for i in range(loaded.arenas["kv"])]
            declared = re.search(rf'void {kernel.name}\((.*?)\) {{', text, re.DOTALL)[1]
            self.assertEqual(re.findall(r"Word\* (\w+)", declared), expected)
            for family in ("w", "kv"):
                handed = re.search(rf"{{{{({family}0\b.*?)}}}}", text, re.DOTALL)[1]
                self.assertEqual(re.findall(r"\w+", handed),
                                 [a for a in expected if re.fullmatch(family + r"\d+", a)])

    def test_only_what_the_card_writes_is_writable(self):
        for _, _, text in self.each():
            declared = re.search(r"void \w+\((.*?)\) {", text, re.DOTALL)[1]
            for constant, name in re.findall(r"(const )?Word\* ([a-z]+)\d*", declared):
                self.assertEqual(constant == "", name in ("result", "scratch", "kv"), name)

    def test_every_argument_is_on_its_port(self):
        for loaded, kernel, text in self.each():
            ports = dict(re.findall(r"HLS_MEMORY_PORT\((\w+), (\w+)\)", text))
            self.assertEqual(ports, {a: kernel.port_of(a).name for a in loaded.arguments})
            for i in range(loaded.arenas["w"]):
                self.assertEqual(ports[f"w{i}"], ports[f"w{i % kernel.streams('w')}"])

    def test_arenas_that_do_not_rotate_are_refused(self):
        loaded = accelerator.load_accelerator(ROOT / "configs/accelerators/u280-combined.json")
        prefill = next(kernel for kernel in loaded.kernels if kernel.name == "prefill")
        arenas = prefill.port_of("w0").arguments
        prefill.ports += [accelerator.Port("v", 512, arenas[1:6:2] + arenas[6::2])]
        for argument in prefill.ports[-1].arguments:
            arenas.remove(argument)
        with self.assertRaisesRegex(accelerator.ConfigError, "w6 is not on the port of w0"):
            kernel_tops.top(loaded, prefill)

    def test_lines_fit(self):
        for loaded, _, text in self.each():
            for line in (text + kernel_tops.simulation(loaded)).splitlines():
                self.assertLessEqual(len(line), 100)


class Directives(unittest.TestCase):
    """The macros of kernels/hls/pragmas.h, as the preprocessor of an HLS compiler expands them."""

    EXPECTED = {
        "HLS_MEMORY_PORT(kv2, kv0)": "interface m_axi port = kv2 bundle = kv0 offset = slave",
        "HLS_CONTROL_PORT": "interface s_axilite port = return",
        "HLS_PIPELINE(2)": "pipeline II = 2",
        "HLS_UNROLL": "unroll",
        "HLS_UNROLL_BY(A::row_parallel)": "unroll factor = A::row_parallel",
        "HLS_PARTITION(partial, 1)": "array_partition variable = partial complete dim = 1",
        "HLS_URAM(kept)": "bind_storage variable = kept type = ram_2p impl = uram",
        "HLS_TRIPS(1, divide_up(K::rows, 16))":
            "loop_tripcount min = 1 max = divide_up(K::rows, 16)",
    }

    def preprocess(self, *definitions):
        source = '#include "kernels/hls/pragmas.h"\n' + "\n".join(self.EXPECTED)
        run = subprocess.run([os.environ.get("CXX", "c++"), "-E", "-P", "-x", "c++", f"-I{ROOT}",
                              *definitions, "-"], input=source, capture_output=True, text=True,
                             check=True)
        return [line.strip() for line in run.stdout.splitlines() if line.strip()]

    def test_vitis_sees_its_directives(self):
        self.assertEqual(self.preprocess("-D__VITIS_HLS__"),
                         ["#pragma HLS " + text for text in self.EXPECTED.values()])

    def test_other_compilers_see_nothing(self):
        self.assertEqual(self.preprocess("-DFLEXLLM_AP_TYPES"), [])

    def test_the_simulation_counts_time_and_sees_nothing_else(self):
        lines = self.preprocess()
        self.assertEqual(lines[-1], "::flexllm::kernels::simulation::advance(2);")
        self.assertNotIn("#pragma HLS", "\n".join(lines))
        self.assertEqual(sum("simulation::advance(2)" in line for line in lines), 1)


if __name__ == "__main__":
    unittest.main()
