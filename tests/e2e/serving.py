"""Starts `flexllm serve` for a test and talks to it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLEXLLM = Path(os.environ["FLEXLLM_BUILD"]) / "flexllm"


class Server:
    def __init__(self, url: str, process: subprocess.Popen, log: list[str]):
        self.url = url  # ends in /v1
        self.process = process
        self.log = log

    def post(self, path: str, body: dict[str, Any], timeout: float = 600) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)


@contextlib.contextmanager
def serve(model: Path, *options: str, cache: Path, **variables: str) -> Iterator[Server]:
    """A server on the emulated card at a free port, stopped by SIGTERM; its exit code must be 0."""
    environment = {**os.environ, "FLEXLLM_CACHE": str(cache), **variables}
    command = [FLEXLLM, "serve", "--model", model, "--device", "emulated", "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stderr
    log: list[str] = []
    url = ""
    for line in process.stderr:
        log.append(line)
        if found := re.search(r"http://\S+/v1", line):
            url = found[0]
            break
    if not url:
        process.wait()
        raise AssertionError("flexllm serve did not start:\n" + "".join(log))
    try:
        yield Server(url, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=120)
        log.extend(rest.splitlines(keepends=True))
    assert process.returncode == 0, "".join(log)
