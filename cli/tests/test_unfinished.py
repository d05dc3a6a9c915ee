"""`flexllm quantize` that does not come to its end: killed, or on a full disk.

The file-size limit of a process stands in for both: the write that passes it fails, or, where the
signal has its default action, is the process's last.
"""
import os
import pathlib
import resource
import signal
import subprocess

import pytest

from tests.reference import tiny
from tests.reference.checkpoint import write_checkpoint
from tests.reference.float_model import from_quantized

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    file = tiny.make("plain")
    write_checkpoint(path, tiny.SPECS["plain"], from_quantized(file.weights(), file.inputs()))
    return path


def quantize(folder, output, limit=resource.RLIM_INFINITY, action=signal.SIG_DFL):
    def prepare():
        signal.signal(signal.SIGXFSZ, action)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return subprocess.run([BUILD / "flexllm", "quantize", folder, "-o", output],
                          capture_output=True, text=True, check=False, preexec_fn=prepare)


@pytest.fixture
def whole(tmp_path, folder):
    """The file of a run that nothing disturbed; the layers beside a run are smaller."""
    output = tmp_path / "whole.safetensors"
    done = quantize(folder, output)
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


def test_a_killed_run_leaves_nothing_once_another_is_through(tmp_path, folder, whole):
    place = tmp_path / "output"
    place.mkdir()
    output = place / "out.safetensors"
    killed = quantize(folder, output, len(whole) - 1)
    assert killed.returncode == -signal.SIGXFSZ
    left = sorted(path.name for path in place.iterdir())
    assert left[0] == "out.safetensors.partial"
    assert len(left) == 2 and left[1].startswith("out.safetensors.partial-")
    done = quantize(folder, output)
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == [output]
    assert output.read_bytes() == whole


@pytest.mark.parametrize("share", [0, 0.999])  # nothing fits; all but the end does
def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path, folder, whole, share):
    place = tmp_path / "output"
    place.mkdir()
    output = place / "out.safetensors"
    output.write_text("old")
    full = quantize(folder, output, int(share * len(whole)), signal.SIG_IGN)
    assert full.returncode == 3
    assert "cannot write" in full.stderr and "File too large" in full.stderr
    assert output.read_text() == "old"
    assert {path.name for path in place.iterdir()} <= {output.name, output.name + ".partial"}
    done = quantize(folder, output)
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == [output]
    assert output.read_bytes() == whole
