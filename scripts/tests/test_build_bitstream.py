"""Tests of scripts/build-bitstream with programs that stand in for Vitis: what is run in what order,
what is run again, what is said when something is missing or fails. Run by ctest, or by hand."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = "xilinx_u280_gen3x16_xdma_1_202211_1"
BENCHES = ROOT / "kernels/testbench"
MODULES = ("hadamard", "norm", "quantize")  # that the copy of the tree has
sys.path.insert(0, str(ROOT / "scripts"))
import bitstream_reports as reports  # noqa: E402

CSYNTH = """<profile><PerformanceEstimates><SummaryOfTimingAnalysis><EstimatedClockPeriod>2.433
</EstimatedClockPeriod></SummaryOfTimingAnalysis><SummaryOfOverallLatency><Worst-caseLatency>undef
</Worst-caseLatency></SummaryOfOverallLatency></PerformanceEstimates><AreaEstimates><Resources>
<BRAM_18K>30</BRAM_18K><DSP>336</DSP><FF>9</FF><LUT>41000</LUT><URAM>4</URAM></Resources>
</AreaEstimates></profile>"""
UTIL = """| Name | LUT | LUTAsMem | REG | BRAM | URAM | DSP |
+------+-----+----------+-----+------+------+-----+
| User Budget | 1146240 [100.00%] | 1 | 1 | 1800 [100.00%] | 960 | 9020 |
|    decode (1) | 200000 [ 17.45%] | 1 | 1 | 100.5 [ 5.58%] | 64 | 2000 [ 22.17%] |
|       decode_1 | 200000 [ 17.45%] | 1 | 1 | 100.5 [ 5.58%] | 64 | 2000 [ 22.17%] |
"""
TIMING = """    WNS(ns)      TNS(ns)  TNS Failing Endpoints
    -------      -------  ---------------------
      0.012        0.000                      0
"""
# Stands in for every program of Vitis: notes its arguments, and writes what the real one would.
FAKE = """#!{python}
import os, re, sys, time
from pathlib import Path
name, words = Path(sys.argv[0]).name, sys.argv[1:]
if words == ["--version"]:
    print("****** v++ v{version} (64-bit)")
    sys.exit(0)
home = Path("{home}")
with (home / "calls").open("a") as file:
    file.write(" ".join([name, *words]) + "\\n")
what = " ".join(words)
print("working on", what)
if (home / "fail").exists() and (home / "fail").read_text() in what:
    sys.exit("ERROR: it does not fit")
if (home / "hang").exists() and (home / "hang").read_text() in what:
    time.sleep(20)
def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if name == "vitis_hls" and "csynth" in what:
    put(Path("project/solution/syn/report/csynth.xml"), {csynth!r})
if name == "v++" and "-c" in words:
    kernel = re.search(r"-o (\\S+)/(\\w+).xo", what)
    put(Path(kernel[1]) / (kernel[2] + ".xo"), "object")
    put(Path(f"temp/{{kernel[2]}}_csynth.xml"), {csynth!r})
if name == "v++" and "-l" in words:
    put(Path(re.search(r"-o (\\S+)", what)[1]), "bits")
    put(Path("reports/link/imp/impl_1_kernel_util_routed.rpt"), {util!r})
    put(Path("reports/link/imp/impl_1_hw_bb_locked_timing_summary_routed.rpt"), {timing!r})
"""


class BuildBitstream(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name).resolve()
        self.out = self.home / "out"
        self.tree = self.home / "tree"  # a copy, so that its sources change only when a test says so
        for name in ("configs", "kernels", "scripts"):
            shutil.copytree(ROOT / name, self.tree / name)
        for path in (self.tree / "kernels/testbench").glob("*.cpp"):
            if path.stem.rpartition("_")[0] not in MODULES:
                path.unlink()
        self.script = str(self.tree / "scripts/build-bitstream")
        self.environment = {**os.environ, "PATH": f"{self.home / 'bin'}:/usr/bin:/bin",
                            "XILINX_VITIS": str(self.home),
                            "PLATFORM_REPO_PATHS": str(self.home / "platforms")}
        for name in ("v++", "vitis_hls", "emconfigutil"):
            self.put_tool(name)
        platform = self.home / "platforms" / PLATFORM / f"{PLATFORM}.xpfm"
        platform.parent.mkdir(parents=True)
        platform.write_text("")

    def put_tool(self, name: str, version: str = "2022.2"):
        path = self.home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE.format(python=sys.executable, version=version, home=self.home,
                                    csynth=CSYNTH, util=UTIL, timing=TIMING))
        path.chmod(0o755)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, self.script, "u280-combined", "--output", str(self.out),
                *arguments]

    def run_script(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
        result = subprocess.run(self.command(*arguments), env=self.environment,
                                capture_output=True, text=True)
        self.assertEqual(result.returncode, status, result.stderr + result.stdout)
        return result

    def calls(self) -> list[str]:
        path = self.home / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return calls

    def test_everything_runs_in_order_and_only_once(self):
        said = self.run_script().stdout
        calls = self.calls()
        scripts = [Path(c.split()[-1]).name for c in calls if c.startswith("vitis_hls -f ")]
        self.assertEqual(scripts, [f"{m}.{s}.tcl" for m in MODULES
                                   for s in ("csim", "csynth", "cosim")])
        rest = [c for c in calls if c.startswith("v++")]
        self.assertEqual([("-c" in c.split(), "-l" in c.split()) for c in rest],
                         [(True, False), (True, False), (False, True)])
        self.assertEqual(set(rest[2].split()[-2:]), {str(self.out / f"{kernel}.compile/{kernel}.xo")
                                                     for kernel in ("prefill", "decode")})
        self.assertTrue((self.out / "link/u280-combined.xclbin").exists())
        self.assertIn("2000", said)
        self.run_script()
        self.assertEqual(self.calls(), [])

    def test_a_changed_input_is_run_again_with_what_follows(self):
        self.run_script("--steps", "compile,link")
        self.calls()
        (self.out / "decode.compile/decode.xo").write_text("other")
        self.run_script("--steps", "compile,link")
        calls = self.calls()
        self.assertEqual([c.split()[1] for c in calls], ["-l"], calls)
        (self.out / "decode.compile/decode.xo").unlink()
        self.run_script("--steps", "compile,link")
        self.assertEqual([c.split()[1] for c in self.calls()], ["-c", "-l"])
        header = self.tree / "kernels/modules/norm.h"
        header.write_text(header.read_text() + "// changed\n")
        self.run_script("--steps", "compile")
        self.assertEqual(len(self.calls()), 2)
        self.put_tool("v++", "2023.1")
        self.run_script("--steps", "compile")
        self.assertEqual(len(self.calls()), 2)

    def test_a_failure_is_said_with_its_log_and_run_again(self):
        (self.home / "fail").write_text("norm.csynth")
        said = self.run_script("--steps", "csim,csynth,cosim", status=1).stderr
        self.assertIn("norm.csynth: failed: vitis_hls ended with status 1", said)
        self.assertIn("it does not fit", said)
        self.assertIn("norm.cosim: norm.csynth must be run first", said)
        self.assertIn("working on", (self.out / "logs/norm.csynth.log").read_text())
        self.assertEqual(len(self.calls()), 3 * len(MODULES) - 1)
        (self.home / "fail").unlink()
        self.run_script("--steps", "csim,csynth,cosim")
        self.assertEqual([Path(c.split()[-1]).name for c in self.calls()],
                         ["norm.csynth.tcl", "norm.cosim.tcl"])

    def test_killed_half_way_is_not_done(self):
        for how in (signal.SIGKILL, signal.SIGTERM):
            (self.home / "hang").write_text("norm.csim")
            process = subprocess.Popen(self.command("--module", "norm", "--steps", "csim"),
                                       env=self.environment, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            while not (self.home / "calls").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(how)
            process.wait()
            self.assertNotEqual(process.returncode, 0)
            self.assertFalse(list(self.out.glob("done/*")))
            (self.home / "hang").unlink()
            self.calls()
        self.run_script("--module", "norm", "--steps", "csim")
        self.assertEqual(len(self.calls()), 1)

    def test_what_is_missing_is_said(self):
        for name in ("v++", "vitis_hls"):
            (self.home / "bin" / name).unlink()
        self.environment["PLATFORM_REPO_PATHS"] = ""
        del self.environment["XILINX_VITIS"]
        said = self.run_script(status=3).stderr
        for what in ("XILINX_VITIS is not set", "v++ is not on PATH", "vitis_hls", PLATFORM,
                     "--dry-run"):
            self.assertIn(what, said)
        self.assertFalse(self.out.exists())

    def test_an_old_vitis_is_refused(self):
        self.put_tool("v++", "2021.2")
        self.assertIn("2021.2, older than 2022.2", self.run_script(status=3).stderr)

    def test_a_module_needs_no_platform(self):
        self.environment["PLATFORM_REPO_PATHS"] = ""
        self.run_script("--module", "hadamard")
        self.assertEqual(len(self.calls()), 3)

    def test_later_versions_have_vitis_run(self):
        (self.home / "bin/vitis_hls").unlink()
        self.put_tool("vitis-run")
        self.run_script("--module", "hadamard", "--steps", "csim")
        self.assertTrue(self.calls()[0].startswith("vitis-run --mode hls --tcl "))

    def test_emulation_has_its_configuration(self):
        self.run_script("--target", "hw_emu", "--steps", "compile,link")
        calls = self.calls()
        self.assertTrue(all("-t hw_emu" in c for c in calls[:3]), calls)
        self.assertTrue(calls[3].startswith(f"emconfigutil --platform {PLATFORM}"))

    def test_a_dry_run_prints_commands_and_files_and_does_nothing(self):
        self.environment = {"PATH": "/usr/bin:/bin"}
        text = self.run_script("--dry-run", "--jobs", "3").stdout
        self.assertFalse(self.out.exists())
        commands = [line.split(" && ")[1] for line in text.splitlines() if " && " in line]
        self.assertEqual(len(commands), 3 * len(MODULES) + 3)
        link = shlex.split(commands[-1])
        self.assertEqual(link[link.index("--jobs") + 1], "3")
        self.assertIn("kernel.decode.kernel_flags=-std=c++14",
                      " ".join(c for c in commands if "-c" in c.split()))
        files = [Path(line[7:]).name for line in text.splitlines() if line.startswith("# file ")]
        self.assertEqual(len(files), len(set(files)))
        for command in commands:  # whatever a command reads is printed, or is in the repository
            for word in shlex.split(command):
                if word.startswith(str(self.out / "generated/")):
                    self.assertIn(Path(word).name, files)
        for line in text.splitlines():
            if line.startswith("add_files"):
                self.assertTrue(Path(line.split('"')[1]).exists(), line)
        for what in ("set_top hadamard_top", "set_part xcu280-fsvh2892-2L-e", "csim_design",
                     "csynth_design", "cosim_design -rtl verilog", "nk=decode:1:", "freqHz="):
            self.assertIn(what, text)

    def test_every_testbench_is_a_module_that_our_own_build_runs_too(self):
        modules = sorted(p.name.removesuffix("_top.cpp") for p in BENCHES.glob("*_top.cpp"))
        self.assertLess(set(MODULES), set(modules))
        self.assertEqual(modules, sorted(p.name.removesuffix("_main.cpp")
                                         for p in BENCHES.glob("*_main.cpp")))
        cmake = (ROOT / "kernels/CMakeLists.txt").read_text()
        built = re.search(r"set\(testbench_modules\s([^)]*)\)", cmake)[1].split()
        self.assertEqual(built, modules)
        self.script = str(ROOT / "scripts/build-bitstream")
        text = self.run_script("--steps", "csim,csynth,cosim", "--dry-run").stdout
        self.assertEqual(re.findall(r"^# (\w+\.\w+)$", text, re.M), [
            f"{module}.{step}" for module in modules for step in ("csim", "csynth", "cosim")])
        for module in modules:
            self.assertIn(f"set_top {module}_top\n", text)
            self.assertIn(f'extern "C" void {module}_top(',
                          (BENCHES / f"{module}_top.cpp").read_text())

    def test_arguments_are_checked(self):
        self.assertIn("no such step: synth", self.run_script("--steps", "synth", status=2).stderr)
        self.run_script("--module", "nothing", status=2)
        result = subprocess.run([sys.executable, self.script, "no-such"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 2)
        self.assertIn("no-such", result.stderr)

    def test_reports_stand_beside_the_estimate(self):
        plan = self.home / "plan.json"
        plan.write_text(json.dumps({"resources": {"kernels": [
            {"kernel": "decode", "dsp": 2345, "bram18": 222, "uram": 66, "lut": 210000}]}}))
        self.run_script("--steps", "compile,link,csynth", "--plan", str(plan))
        rows = {(row["name"], row["stage"]): row
                for row in json.loads((self.out / "report.json").read_text())}
        self.assertEqual(rows["hadamard", "csynth"]["dsp"], 336)
        self.assertEqual(rows["hadamard", "csynth"]["period_ns"], 2.433)
        self.assertNotIn("cycles", rows["hadamard", "csynth"])
        self.assertEqual(rows["decode", "link"], {
            "name": "decode", "stage": "link", "dsp": 2000, "bram18": 201, "uram": 64,
            "lut": 200000, "slack_ns": 0.012})
        lines = (self.out / "report.txt").read_text().splitlines()
        self.assertTrue(any(line.split()[:4] == ["decode", "link", "2000", "2345"]
                            for line in lines), lines)

    def test_without_an_estimate_its_column_is_left_out(self):
        self.assertNotIn("plan", reports.table([{"name": "a", "stage": "csynth", "dsp": 1}]))
        self.assertEqual(reports.table([]), "no reports yet\n")


if __name__ == "__main__":
    unittest.main()
