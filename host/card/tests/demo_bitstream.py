"""Write a test bitstream: demo_bitstream.py NAME KERNELS.so OUT.xclbin [VBNV]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
import accelerator  # noqa: E402
import xclbin  # noqa: E402

A, U, K = xclbin.Argument, xclbin.ComputeUnit, xclbin.Kernel


def main(name: str, kernels: str, out: str, vbnv: str = ""):
    root = Path(__file__).resolve().parents[3]
    device = accelerator.load_device(root / "configs" / "devices" / "u280.json")
    many = [A(f"p{i}", "void*") for i in range(30)]
    design = xclbin.Design(
        name, vbnv or device.emulated_vbnv, device.platform, device.fpga_device,
        device.shell_uuid, 300, device.memories,
        [K("vadd", [A("a", "int*"), A("b", "int*"), A("out", "int*"), A("n", "unsigned int")],
           [U("vadd_1", {"a": "HBM[0]", "b": "HBM[1]", "out": "HBM[2]"}),
            U("vadd_2", {"a": "HBM[4]", "b": "HBM[5]", "out": "HBM[6]"})]),
         K("saxpy", [A("alpha", "float"), A("x", "float*"), A("y", "float*"),
                     A("n", "unsigned long")], [U("saxpy_1", {"x": "DDR[0]", "y": "DDR[0]"})]),
         K("spin", [A("ms", "unsigned int"), A("out", "int*")], [U("spin_1", {"out": "HBM[8]"})]),
         K("extents", many, [U("extents_1", {f"p{i}": f"HBM[{i}]" for i in range(30)})]),
         K("broken", [A("out", "int*")], [U("broken_1", {"out": "HBM[8]"})]),
         K("ghost", [A("out", "int*")], [U("ghost_1", {"out": "HBM[8]"})])],
        {"design": name})
    Path(out).write_bytes(xclbin.write(design, Path(kernels).read_bytes()))


main(*sys.argv[1:])
