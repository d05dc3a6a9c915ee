"""A server to test against: the one at --url, or server_fake out of the build in FLEXLLM_BUILD."""
import contextlib
import os
import pathlib
import subprocess

import openai
import pytest


def pytest_addoption(parser):
    parser.addoption("--url", help="base of a running server, http://127.0.0.1:8080")
    parser.addoption("--api-key", help="its key; 'none' if it asks for none", default="none")


@pytest.fixture(scope="session")
def key(request):
    return request.config.getoption("--api-key") if request.config.getoption("--url") else "secret"


@contextlib.contextmanager
def fake_server(*options, key=None):
    """Runs server_fake and gives its URL."""
    program = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release"),
                           "server/tests/server_fake")
    keys = {"FLEXLLM_API_KEY": key} if key else {}
    with subprocess.Popen([program, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env={**os.environ, **keys}) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.stdin.close()
        assert server.wait(60) == 0


@pytest.fixture(scope="session")
def url(request, key):
    given = request.config.getoption("--url")
    if given:
        yield given.rstrip("/").removesuffix("/v1")
        return
    with fake_server(key=key) as running:
        yield running


@pytest.fixture(scope="session")
def client(url, key):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=300) as client:
        yield client


@pytest.fixture(scope="session")
def model(client):
    return client.models.list().data[0].id
