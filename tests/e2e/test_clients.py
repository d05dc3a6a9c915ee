"""The official `openai` package and our own clients against the real server and model."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import FLEXLLM, Server, serve

MODEL = Path(os.environ["FLEXLLM_DEFAULT_GGUF"])
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Server]:
    with serve(MODEL, cache=cache) as running:
        yield running


def flexllm(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    command = [FLEXLLM, *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment, timeout=300
    )


def test_openai_package(server: Server) -> None:
    url = server.url.removesuffix("/v1")
    suite = ROOT / "server" / "tests" / "test_openai.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", suite, "--url", url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout


def test_chat_answers_every_line(server: Server, tmp_path: Path) -> None:
    url = server.url.removesuffix("/v1")
    lines = "What is the capital of France?\nAnd of Italy?\n"
    done = flexllm("chat", "--url", url, "--temperature", "0", stdin=lines, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "Rome" in done.stdout


def test_run_prints_the_answer_and_its_figures(cache: Path) -> None:
    done = flexllm(
        "run", "--model", str(MODEL), "--device", "emulated", "--temperature", "0", "--json",
        "What is the capital of France?", FLEXLLM_CACHE=str(cache),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "Paris" in report["text"]


def test_bench_gets_the_tokens_that_it_asks_for(server: Server) -> None:
    done = flexllm(
        "bench", "--url", server.url, "--requests", "6", "--concurrency", "3", "--prompt-tokens",
        "uniform:8-24", "--output-tokens", "uniform:3-9", "--slo", "ttft=300s,itl=300s", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["requests"] == {"done": 6, "failed": 0, "unfinished": 0}
    assert report["requests_with_usage"] == 6
    assert report["output_tokens"] == report["asked_output_tokens"]
    assert 6 * 8 < report["prompt_tokens"]  # the words and the chat template
    assert report["ttft_s"]["count"] == report["goodput"]["requests"] == 6


def test_doctor_finds_the_emulated_card_sound() -> None:
    done = flexllm("doctor", "--device", "emulated", "--selftest", "--json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_perplexity_is_that_of_a_language_model(cache: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text((ROOT / "LICENSE").read_text())
    done = flexllm(
        "perplexity", str(MODEL), "--device", "emulated", "--text", str(text), "--tokens", "400",
        "--json", FLEXLLM_CACHE=str(cache),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["tokens"] == 399
    assert 1 < report["ppl_float"] < report["ppl"] < 20  # a well-known text
    assert report["stderr"] > 0
    assert 0 < report["over_float"] < 0.1


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["serve", "--model", "no-such-file"], 3, "no-such-file"),
        (["serve", "--model", "LICENSE", "--device", "emulated"], 3, "LICENSE"),
        (["serve", "--max-qeue", "3"], 2, "max-qeue"),
        (["serve", "--model", "LICENSE", "--scheme", "w3a8kv8-lm8"], 2, "scheme"),
        (["quantize", "default", "-o", "x.safetensors", "--scheme", "nonsense"], 2, "scheme"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_wrong_command_lines_say_what_is_wrong(
    arguments: list[str], code: int, word: str, cache: Path
) -> None:
    done = subprocess.run(
        [FLEXLLM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "FLEXLLM_CACHE": str(cache)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert word in done.stderr
