"""The fast twins against the NumPy reference: random launches, byte for byte.

The reference writes the buffers of each launch; the twin runs them through build/*/kernels/
kernels_run_launch; the reference compares everything that the contract defines.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.reference import cases, launch

# By kind: launches as they come; denormals, infinities, ties and NaN; launches to be refused.
CASES = {"ordinary": 60, "extreme": 30, "refused": 20}
FACTOR = 7 if os.environ.get("FLEXLLM_LONG") else 1
RUNNER = Path(os.environ["FLEXLLM_BUILD"]) / "kernels" / "kernels_run_launch"


def instruction_sets() -> list[str]:
    """Those of this processor, as the twin sees it."""
    return subprocess.run([RUNNER, "--isas"], check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture(scope="module", params=CASES)
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp(request.param)
    folders = [root / f"{seed:03d}" for seed in range(CASES[request.param] * FACTOR)]
    for seed, folder in enumerate(folders):
        cases.random_case(2026 + seed, request.param).save(folder)
    return folders


@pytest.mark.parametrize("isa", instruction_sets())
def test_twin_equals_reference(isa: str, folders: list[Path]) -> None:
    for folder in folders:
        subprocess.run([RUNNER, folder, isa], check=True, stdout=subprocess.DEVNULL)
        assert launch.main(["--dir", str(folder), "--expect"]) == 0, f"{folder} on {isa}"
