"""The running server against its own description, by schemathesis: what /openapi.json allows is
served, what it does not is refused, and what comes back is as described."""

import os
import pathlib
import re
import subprocess
import sys

EXAMPLES = 200 if os.environ.get("FLEXLLM_LONG") else 15
TESTS = pathlib.Path(__file__).parent


def test_schemathesis_finds_nothing(tmp_path):
    server = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
    command = [server / "server/tests/server_fake", "--small"]  # answers at once, with few choices
    environment = {
        **os.environ,
        "FLEXLLM_API_KEY": "secret",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path),
        "PYTHONPATH": str(TESTS),
        "SCHEMATHESIS_HOOKS": "openapi_hooks",
    }
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as fake:
        url = f"http://127.0.0.1:{fake.stdout.readline().strip()}"
        run = subprocess.run(
            [pathlib.Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json",
             "--checks", "all", "--seed", "1", "--max-examples", str(EXAMPLES),
             "--continue-on-failure", "--request-timeout", "60", "--no-color",
             "-H", "Authorization: Bearer secret"],
            cwd=tmp_path, text=True, capture_output=True, timeout=1800, env=environment,
        )  # fmt: skip
        fake.stdin.close()
        assert fake.wait(60) == 0
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    selected, total = re.search(r"(\d+) selected / (\d+) total", run.stdout).groups()
    tested = re.search(r"Tested: (\d+)", run.stdout)[1]
    assert selected == total == tested, "some operations were left out:\n" + run.stdout[-3000:]
