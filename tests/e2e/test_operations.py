"""What operators do to a running server: reload, rotate, supervise, stop under load, kill."""

import contextlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import FLEXLLM

MODEL = Path(os.environ["FLEXLLM_DEFAULT_GGUF"])
BOUND_S = 120  # nothing here takes long; a busy machine may


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


class Supervisor:
    """Listens as systemd does, and starts the server."""

    def __init__(self, folder: Path, cache: Path):
        self.folder = folder
        self.cache = cache
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        # Read at once, as systemd does: a handful of unread messages fill the socket.
        self.messages: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()
        self.path = folder / "socket"

    def listen(self) -> None:
        while True:
            self.messages.put(self.notify.recv(4096).decode())

    def wait_for(self, word: str) -> str:
        while True:
            message = self.messages.get(timeout=600)  # the first start packs the model
            if word in message:
                return message

    @contextlib.contextmanager
    def running(self, *options: str, code: int = 0) -> Iterator[subprocess.Popen]:
        variables = {key: value for key, value in os.environ.items() if "FLEXLLM_API" not in key}
        variables |= {
            "FLEXLLM_CACHE": str(self.cache),
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "WATCHDOG_USEC": "400000",
        }
        command = [FLEXLLM, "serve", "--model", MODEL, "--device", "emulated", "--port", "off",
                   "--unix-socket", self.path, *options]  # fmt: skip
        with open(self.folder / "log", "a") as log:
            process = subprocess.Popen(command, stderr=log, env=variables)
        try:
            self.wait_for("READY=1")
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(BOUND_S) == code, self.log()
        finally:
            process.kill()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=BOUND_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(BOUND_S)
        connection.sock.connect(str(self.path))
        return connection


@pytest.fixture
def supervisor(tmp_path: Path, cache: Path) -> Supervisor:
    return Supervisor(tmp_path, cache)


def status(connection: http.client.HTTPConnection, key: str) -> int:
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def complete(connection: http.client.HTTPConnection, tokens: int, stream: bool) -> str:
    body = {"prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"Content-Type": "application/json"})  # fmt: skip
    answer = connection.getresponse()
    text = answer.read().decode()
    return f"{answer.status} {text}"


def test_sighup_reads_keys_and_opens_the_log_anew(supervisor: Supervisor) -> None:
    keys = supervisor.folder / "keys"
    keys.write_text("# ours\nfirst\n")
    access = supervisor.folder / "access.json"
    options = ("--api-key-file", str(keys), "--access-log", str(access))
    with supervisor.running(*options) as process:
        assert "WATCHDOG=1" in supervisor.wait_for("WATCHDOG=1")
        connection = supervisor.connect()
        assert status(connection, "first") == 200
        assert status(connection, "second") == 401

        keys.write_text("second\n")
        access.rename(access.with_suffix(".1"))
        process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in supervisor.wait_for("RELOADING=1")
        assert "serving" in supervisor.wait_for("READY=1")
        assert status(connection, "first") == 401  # on the same connection
        assert status(connection, "second") == 200

        keys.write_text("# none\n")
        process.send_signal(signal.SIGHUP)
        supervisor.wait_for("READY=1")
        assert status(connection, "second") == 200
        connection.close()
    supervisor.wait_for("STOPPING=1")
    assert f"{keys}: holds no key; it stays as it was" in supervisor.log()
    before = [json.loads(line) for line in access.with_suffix(".1").read_text().splitlines()]
    after = [json.loads(line) for line in access.read_text().splitlines()]
    assert [line["status"] for line in before] == [200, 401]
    assert [line["status"] for line in after] == [401, 200, 200]
    assert not supervisor.path.exists()


def test_sigterm_under_load_loses_no_request(supervisor: Supervisor) -> None:
    answers: list[str] = []

    def client(number: int) -> None:
        answers.append(complete(supervisor.connect(), 24, stream=number % 2 == 0))

    with supervisor.running("--max-sequences", "2") as process:  # so that most of them wait
        complete(supervisor.connect(), 1, stream=False)
        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        metrics = supervisor.connect()
        for _ in range(1000):
            metrics.request("GET", "/metrics")
            values = dict(line.rsplit(" ", 1) for line in
                          metrics.getresponse().read().decode().splitlines() if line[0] != "#")  # fmt: skip
            running, waiting = (int(values[f"flexllm_requests_{what}"]) for what in
                                ("running", "waiting"))  # fmt: skip
            if running + waiting + len(answers) == 8:
                break
            time.sleep(0.01)
        assert len(answers) < 8
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        process.wait(BOUND_S)
    assert len(answers) == 8
    for answer in answers:
        assert answer.startswith("200 ")
        assert "[DONE]" in answer or '"finish_reason":"length"' in answer


def test_killed_and_started_again_without_cleaning(supervisor: Supervisor) -> None:
    with supervisor.running(code=-signal.SIGKILL) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert supervisor.path.is_socket()
    with supervisor.running():
        assert complete(supervisor.connect(), 2, stream=False).startswith("200 ")
    assert not supervisor.path.exists()


def test_a_supervisor_that_does_not_read_holds_nothing_up(supervisor: Supervisor) -> None:
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    deaf.bind(str(supervisor.folder / "deaf"))
    while True:
        with contextlib.suppress(BlockingIOError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            other.sendto(b"full", str(supervisor.folder / "deaf"))
            continue
        break
    command = [FLEXLLM, "serve", "--model", MODEL, "--device", "emulated", "--port", "0"]
    variables = os.environ | {
        "FLEXLLM_CACHE": str(supervisor.cache),
        "NOTIFY_SOCKET": str(supervisor.folder / "deaf"),
        "WATCHDOG_USEC": "400000",
    }
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=variables, text=True)
    try:
        assert process.stderr
        assert any("serving" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 0
    finally:
        process.kill()
