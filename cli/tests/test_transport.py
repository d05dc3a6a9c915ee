"""Our clients under TLS and through a Unix socket, against the server on a fake card."""

import contextlib
import json
import os
import pathlib
import subprocess

import pytest

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("FLEXLLM_")}


@contextlib.contextmanager
def fake_server(*options):
    with subprocess.Popen(
        [BUILD / "server/tests/server_fake", *map(str, options)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
    ) as server:  # fmt: skip
        yield int(server.stdout.readline())
        server.stdin.close()
        assert server.wait(60) == 0


def flexllm(*arguments):
    return subprocess.run(
        [BUILD / "flexllm", *map(str, arguments)], text=True, capture_output=True,
        env=ENVIRONMENT, timeout=120, check=False,
    )  # fmt: skip


def ask(url, *options):
    return flexllm("run", "--url", url, "--temperature", 0, "--max-tokens", 8, *options, "hello")


def bench(url, *options):
    done = flexllm("bench", "--url", url, "--requests", 9, "--concurrency", 3, "--output-tokens",
                   4, "--prompt-tokens", 4, "--json", *options)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["requests"]


@pytest.fixture(scope="module")
def plain_answer():
    with fake_server() as port:
        return ask(f"http://127.0.0.1:{port}").stdout


def test_https(tmp_path, plain_answer):
    with fake_server("--tls", tmp_path) as port:
        trusted = ("--ca-file", tmp_path / "own.crt")
        url = f"https://localhost:{port}/v1"
        done = ask(url, *trusted)
        assert done.returncode == 0, done.stderr
        assert done.stdout == plain_answer
        assert bench(url, *trusted) == {"done": 9, "failed": 0, "unfinished": 0}

        unknown = ask(url)
        assert unknown.returncode == 5
        assert "certificate: self-signed certificate" in unknown.stderr
        other_name = ask(f"https://127.0.0.1:{port}", *trusted)
        assert other_name.returncode == 5
        assert "certificate: IP address mismatch" in other_name.stderr
        other_name = flexllm("bench", "--model", "x", "--url", f"https://127.0.0.1:{port}", *trusted)
        assert other_name.returncode == 5
        assert "certificate: IP address mismatch" in other_name.stderr
        assert ask(f"http://localhost:{port}").returncode == 5
        missing = ask(url, "--ca-file", tmp_path / "none")
        assert missing.returncode == 2
        assert "none: holds no certificate" in missing.stderr


def test_unix_socket(tmp_path, plain_answer):
    path = tmp_path / "socket"
    with fake_server("--unix", path):
        done = ask(f"unix:{path}")
        assert done.returncode == 0, done.stderr
        assert done.stdout == plain_answer
        assert bench(f"unix:{path}") == {"done": 9, "failed": 0, "unfinished": 0}
    gone = ask(f"unix:{path}")
    assert gone.returncode == 5
