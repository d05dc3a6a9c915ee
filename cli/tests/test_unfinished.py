"""`flexllm quantize` and `learn-rotations` that do not come to their end: killed, or on a full disk.

For quantize the file-size limit of a process stands in for both: the write that passes it fails,
or, where the signal has its default action, is the process's last.
"""
import os
import pathlib
import resource
import signal
import subprocess
import time

import pytest

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()


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


def test_learned_rotations_go_on_where_they_were_killed(tmp_path, folder):
    text = tmp_path / "text.txt"
    text.write_text("abba" * 40)

    def learn(output, steps=400):
        return subprocess.Popen(
            [BUILD / "flexllm", "learn-rotations", folder, "-o", output, "--scheme",
             "w4a8kv8-lm8-r12", "--steps", str(steps), "--calibration", text,
             "--calibration-windows", "2", "--calibration-tokens", "50"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = tmp_path / "whole.safetensors"
    with learn(whole) as run:
        said, errors = run.communicate()
    assert run.returncode == 0, errors
    place = tmp_path / "output"
    place.mkdir()
    output = place / "out.safetensors"
    kept = place / "out.safetensors.partial" / "rotation.residual.safetensors"
    with learn(output) as run:
        while not kept.exists() and run.poll() is None:
            time.sleep(0.001)
        run.kill()
    assert run.returncode == -signal.SIGKILL, "it was through before it was killed"
    assert not output.exists() and kept.exists()
    with learn(output) as run:
        again, errors = run.communicate()
    assert run.returncode == 0, errors
    assert list(place.iterdir()) == [output]
    assert output.read_bytes() == whole.read_bytes()
    assert again == said.replace(str(whole), str(output))
