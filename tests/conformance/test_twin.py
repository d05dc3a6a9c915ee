"""The fast twins against the NumPy reference: random launches, byte for byte.

The reference writes the buffers of each launch; the twin runs them through build/*/kernels/
kernels_run_launch; the reference compares everything that the contract defines.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.reference import cases, launch

CASES = 400 if os.environ.get("FLEXLLM_LONG") else 60
RUNNER = Path(os.environ["FLEXLLM_BUILD"]) / "kernels" / "kernels_run_launch"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("launches")
    folders = [root / f"{seed:03d}" for seed in range(CASES)]
    for seed, folder in enumerate(folders):
        cases.random_case(2026 + seed).save(folder)
    return folders


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512_vnni"])
def test_twin_equals_reference(isa: str, folders: list[Path]) -> None:
    """An instruction set that this processor lacks runs as the best one below it."""
    for folder in folders:
        subprocess.run([RUNNER, folder, isa], check=True, stdout=subprocess.DEVNULL)
        assert launch.main(["--dir", str(folder), "--expect"]) == 0, f"{folder.name} on {isa}"
