"""`flexllm bench` as its users see it, against a small server that behaves well or badly."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
import xml.etree.ElementTree

import pytest

from cli.tests.sse_server import PAUSE, serving

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
FLEXLLM = BUILD / "flexllm"
DOCS = pathlib.Path(__file__).parents[2] / "docs"
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("FLEXLLM_")}


@pytest.fixture
def server():
    with serving() as running:
        yield running


def flexllm(*options, **variables):
    return subprocess.run([FLEXLLM, "bench", *map(str, options)], text=True, capture_output=True,
                          env={**ENVIRONMENT, **variables}, timeout=120, check=False)


def bench(server, *options, model="good", code=0):
    done = flexllm("--url", server.url, "--model", model, "--output-tokens", 8, "--warmup", 0,
                   "--json", *options)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def only_failure(report):
    ((kind, failure),) = report["failures"].items()
    assert failure["count"] == report["requests"]["failed"]
    return kind, failure["example"]


def test_a_closed_loop_keeps_its_number_running(server):
    report = bench(server, "--requests", 12, "--concurrency", 4, "--warmup", 3)
    assert report["requests"] == {"done": 12, "failed": 0, "unfinished": 0}
    assert len(server.requests) == 15
    assert report["load"]["warm_up"] == 3
    assert server.most_running == 4
    assert server.connections == 4  # kept for the next request
    assert report["output_tokens"] == report["requests_with_usage"] * 8 == 96
    assert report["prompt_tokens"] == 12 * 11
    assert report["ttft_s"]["count"] == 12 and report["ttft_s"]["p50"] >= PAUSE
    assert report["itl_s"]["count"] == 12 and report["itl_s"]["p50"] >= PAUSE
    assert report["gap_s"]["count"] == 12 * 7
    assert report["e2e_s"]["p50"] >= 8 * PAUSE
    assert report["requests_per_s"] == pytest.approx(12 / report["seconds"])
    assert report["output_tokens_per_s"] == pytest.approx(96 / report["seconds"])
    assert report["seconds"] >= 3 * report["e2e_s"]["p50"] * 0.5


def test_an_open_loop_does_not_wait_for_answers(server):
    report = bench(server, "--requests", 20, "--rate", 1000)
    assert report["requests"]["done"] == 20
    assert server.most_running > 8  # they take 0.16 s and arrive in 0.02 s
    assert report["load"]["rate"] == 1000 and report["load"]["concurrency"] is None
    slow = bench(server, "--requests", 5, "--rate", 20, "--output-tokens", 1)
    # The sum of five gaps of this seed is 0.19 s.
    assert slow["seconds"] > 0.1


def test_the_same_seed_asks_the_same(server):
    lengths = ("--prompt-tokens", "lognormal:20,0.7", "--output-tokens", "uniform:1-9")
    for concurrency, seed in ((1, 5), (4, 5), (4, 6)):
        bench(server, *lengths, "--requests", 8, "--concurrency", concurrency, "--seed", seed)
    asked = [request["body"]["messages"][0]["content"] for request in server.requests]
    assert sorted(asked[:8]) == sorted(asked[8:16]) != sorted(asked[16:])
    assert len(set(asked)) == 16
    assert {len(text.split()) for text in asked[:8]} != {20}


def test_requests_say_what_was_asked_for(server, tmp_path):
    bench(server, "--requests", 1, "--prompt-tokens", 7)
    file = tmp_path / "prompts.jsonl"
    file.write_text('"one"\n{"prompt": "two", "max_tokens": 3}\n')
    bench(server, "--requests", 3, "--concurrency", 1, "--prompts", file, "--endpoint",
          "completions", "--fields", '{"ignore_eos": null, "temperature": 0.5}')
    first, *rest = server.requests
    assert first["path"] == "/v1/chat/completions"
    assert len(first["body"]["messages"][0]["content"].split()) == 7
    assert first["body"]["ignore_eos"] and first["body"]["temperature"] == 0
    assert "Authorization" not in first["headers"]
    assert {request["path"] for request in rest} == {"/v1/completions"}
    assert [request["body"]["prompt"] for request in rest] == ["one", "two", "one"]
    assert [request["body"]["max_tokens"] for request in rest] == [8, 3, 8]
    assert all("ignore_eos" not in request["body"] for request in rest)
    assert rest[0]["body"]["temperature"] == 0.5


def test_the_key_comes_from_the_environment_and_is_not_told(server):
    done = flexllm("--url", server.url, "--requests", 1, "--output-tokens", 1, "--json",
                   FLEXLLM_API_KEY="sk-secret")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["load"]["model"] == "good"  # the first one that is served
    assert {request["headers"]["Authorization"] for request in server.requests} == {
        "Bearer sk-secret"}
    assert "sk-secret" not in done.stdout + done.stderr


def test_tokens_are_counted_by_usage_or_by_chunks(server):
    fours = bench(server, "--requests", 2, model="in_fours")
    assert fours["output_tokens"] == 16 and fours["chunks"] == 4
    # Two chunks a pause apart, of eight tokens in all.
    assert PAUSE / 7 <= fours["itl_s"]["p50"] < fours["gap_s"]["p50"]
    without = bench(server, "--requests", 2, model="no_usage")
    assert without["output_tokens"] == 16 and without["requests_with_usage"] == 0
    text = flexllm("--url", server.url, "--model", "no_usage", "--requests", 1).stdout
    assert "the server sent no usage: a chunk may hold several" in text


def test_goodput_counts_what_is_within_every_limit(server):
    report = bench(server, "--requests", 6, "--slo", "ttft=100s,itl=100s")
    assert report["goodput"] == {"requests": 6, "share": 1,
                                 "requests_per_s": report["requests_per_s"]}
    report = bench(server, "--requests", 6, "--slo", "ttft=100s", "--slo", "gap=1ms")
    assert report["goodput"]["requests"] == 0
    report = bench(server, "--requests", 6, "--concurrency", 1, "--slo", "e2e=100s",
                   model="every_third")
    assert report["goodput"]["share"] == pytest.approx(2 / 6)


@pytest.mark.parametrize(("model", "kind", "example"), [
    ("full", "http 429 rate_limit_error", "queue full"),
    ("proxy", "http 502", ""),
    ("half_closed", "cut off", "the stream ended without [DONE]"),
    ("no_answer", "cut off", "closed before an answer: "),
    ("malformed", "malformed", "not a chunk: "),
    ("not_http", "malformed", "not HTTP: "),
    ("not_chunked", "malformed", "not HTTP: "),
    ("not_a_stream", "malformed", "not an event stream"),
    ("stream_error", "error in the stream unavailable_error", "the card is lost"),
    ("empty", "no text", "the answer ended before its first token"),
])
def test_failures_are_counted_by_kind(server, model, kind, example):
    report = bench(server, "--requests", 3, model=model)
    assert report["requests"] == {"done": 0, "failed": 3, "unfinished": 0}
    found, said = only_failure(report)
    assert found == kind and example in said
    assert report["ttft_s"] is None and report["output_tokens_per_s"] == 0


@pytest.mark.parametrize("model", ["silent", "slow", "endless"])
def test_a_request_has_its_time(server, model):
    report = bench(server, "--requests", 2, "--timeout", 0.5, model=model)
    assert only_failure(report)[0] == "timeout"


@pytest.mark.parametrize("model", ["bytewise", "hangs_up", "no_end"])
def test_unusual_answers_are_answers(server, model):
    report = bench(server, "--requests", 6, "--concurrency", 2, model=model)
    assert report["requests"]["done"] == 6, report["failures"]
    assert report["output_tokens"] == 48


def test_some_fail_and_the_others_count(server, tmp_path):
    drawing = tmp_path / "bench.svg"
    report = bench(server, "--requests", 9, "--concurrency", 3, "--svg", drawing,
                   model="every_third")
    assert report["requests"]["done"] == 3
    assert {kind: failure["count"] for kind, failure in report["failures"].items()} == {
        "cut off": 3, "http 429 rate_limit_error": 3}
    assert report["ttft_s"]["count"] == 3
    tree = xml.etree.ElementTree.parse(drawing)
    words = " ".join(text.text or "" for text in tree.iter("{http://www.w3.org/2000/svg}text"))
    for word in ("time to first token", "inter-token latency", "end to end", "3 done, 6 failed",
                 "failed 3 x cut off", "output tokens/s over time"):
        assert word in words


def test_many_streams_at_once(server):
    report = bench(server, "--requests", 200, "--concurrency", 200, "--output-tokens", 4)
    assert report["requests"]["done"] == 200
    assert report["output_tokens"] == 800


def test_a_duration_ends_the_load(server):
    report = bench(server, "--duration", 0.5, "--concurrency", 2)
    assert report["requests"]["failed"] == report["requests"]["unfinished"] == 0
    assert report["requests"]["done"] >= 2
    assert report["seconds"] >= 0.3


def interrupt(server, model, enough, *options):
    """Ctrl-C when so many requests have come to the server: exit code and output."""
    command = [FLEXLLM, "bench", "--url", server.url, "--model", model, "--output-tokens", "4",
               "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=ENVIRONMENT) as process:
        deadline = time.monotonic() + 60
        while len(server.requests) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


def test_ctrl_c_reports_what_has_finished(server):
    # Four answers end, the first of them the warm-up's; two streams do not.
    code, out, _ = interrupt(server, "good_then_endless", 6, "--concurrency", "2")
    report = json.loads(out)
    assert code == 130 and report["interrupted"]
    assert report["requests"] == {"done": 3, "failed": 0, "unfinished": 2}
    assert report["output_tokens"] == 12


@pytest.mark.parametrize("options", [("--concurrency", "2"), ("--rate", "50")])
def test_ctrl_c_before_anything_was_measured(server, options):
    code, out, errors = interrupt(server, "endless", 1, *options)
    assert code == 130 and out == "" and "before anything was measured" in errors


def test_exit_codes(server, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for options in ((), ("--model", "m")):
            done = flexllm("--url", nobody, *options)
            assert done.returncode == 5 and nobody in done.stderr
    done = flexllm("--url", server.url, "--model", "full")
    assert done.returncode == 6 and "http 429 rate_limit_error: queue full" in done.stderr
    assert len(server.requests) == 1  # the warm-up failed, and the load was not sent
    done = flexllm("--url", server.url, "--requests", 1, "--svg", tmp_path / "none" / "x.svg")
    assert done.returncode == 1 and "cannot write" in done.stderr
    empty = tmp_path / "empty"
    empty.write_text("")
    for options, word in [
        (("--url", "ftp://x"), "--url"), (("--endpoint", "x"), "--endpoint"),
        (("--rate", 0), "--rate"), (("--rate", 1, "--concurrency", 1), "exclude each other"),
        (("--prompt-tokens", "poisson:3"), "--prompt-tokens"), (("--slo", "ttft=5"), "ttft=5"),
        (("--output-tokens", "0"), "--output-tokens"), (("--fields", "[]"), "--fields"),
        (("--fields", '{"stream": false}'), "stream"), (("--prompts", empty), "holds no prompt"),
        (("--prompts", tmp_path / "none"), "cannot be read"), (("--nonsense",), "--nonsense"),
        (("--prompts", empty, "--prompt-tokens", 5), "exclude each other"),
        (("--requests", 0), "--requests"), (("--timeout", 0), "--timeout"),
    ]:
        done = flexllm("--url", server.url, *options)
        assert done.returncode == 2, options
        assert word in done.stderr
    assert len(server.requests) == 3


def test_the_reference_is_that_of_the_program():
    page = flexllm("--help-markdown")
    assert page.returncode == 0
    assert page.stdout in (DOCS / "bench.md").read_text()
    help_text = flexllm("--help").stdout
    options = re.findall(r"`(--[a-z-]+)", page.stdout)
    assert len(options) > 15
    assert all(option in help_text for option in options)
