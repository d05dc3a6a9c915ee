"""`flexllm quantize --budget`: schemes that keep a perplexity or a speed, and refusals."""
import json
import os
import pathlib
import re
import subprocess

import pytest
from safetensors import safe_open

from tests.reference import tiny
from tests.reference.checkpoint import write_checkpoint
from tests.reference.float_model import from_quantized

BUILD = pathlib.Path(os.environ.get("FLEXLLM_BUILD", "build/release")).resolve()
LOW = "w4g64a8kv8-lm8-r4"
KINDS = ["qkv", "o", "gate_up", "down"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("budget")
    (path / "model").mkdir()
    file = tiny.make("plain")
    write_checkpoint(path / "model", tiny.SPECS["plain"],
                     from_quantized(file.weights(), file.inputs()))
    return path


@pytest.fixture(scope="module")
def flexllm(place):
    def run(*arguments, output="out.safetensors"):
        (place / output).unlink(missing_ok=True)
        done = subprocess.run(
            [BUILD / "flexllm", "quantize", place / "model", "-o", place / output,
             "--calibration-windows", "3", "--calibration-tokens", "40", "--budget-windows", "4",
             "--scheme", LOW, *map(str, arguments)],
            capture_output=True, text=True, check=False,
            env=os.environ | {"FLEXLLM_CACHE": str(place / "cache")})
        return done, place / output

    return run


@pytest.fixture(scope="module")
def choose(flexllm):
    def run(*arguments):
        done, output = flexllm(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        with safe_open(output, "numpy") as file:
            assert file.metadata()["scheme"] == report["scheme"]
        return report

    return run


@pytest.fixture(scope="module")
def low(choose):
    """With a budget that asks for nothing."""
    return choose("--budget", "ppl=+100000%")


def raised(report):
    return report["budget"]["raised"]


def test_a_wide_budget_leaves_the_scheme_as_it_is(low):
    assert low["scheme"] == LOW
    assert raised(low) == 0 and low["budget"]["matrices"] == 8
    sensitivities = low["sensitivities"]
    assert [(m["layer"], m["kind"]) for m in sensitivities["matrices"]] == \
        [(layer, kind) for layer in range(2) for kind in KINDS]
    assert all(m["divergence"] > sensitivities["high"] > 0 for m in sensitivities["matrices"])


def test_a_budget_that_cannot_be_met_says_what_is_closest(flexllm):
    done, output = flexllm("--budget", "ppl=+0.00001%")
    assert done.returncode == 3 and not output.exists() and not done.stdout
    found = re.search(r"--budget ppl=\+0.00001%: the closest is (\S+), \+\d+\.\d\d % over float",
                      done.stderr)
    assert found, done.stderr
    assert found[1] == LOW + ":" + ",".join(f"0-1.{kind}=w8g64a8" for kind in KINDS)


def test_a_perplexity_is_kept_with_the_fewest_raised(choose, low, place):
    share = low["budget"]["over_float"] * 0.6
    report = choose("--budget", f"ppl=+{100 * share:.6f}%")
    assert 0 < raised(report) < 8
    measured = {m["raised"]: m["over_float"] for m in report["budget"]["measurements"]}
    assert report["budget"]["over_float"] == measured[raised(report)] <= share
    assert measured[raised(report) - 1] > share  # one fewer was measured, and is too little
    assert report["scheme"].startswith(LOW + ":") and report["scheme"].count("w8g64a8") >= 1
    assert report["budget"]["modelled_tokens_per_s"] <= \
        report["budget"]["modelled_tokens_per_s_low"]
    # The name asks for the same file.
    chosen = (place / "out.safetensors").read_bytes()
    again = subprocess.run(
        [BUILD / "flexllm", "quantize", place / "model", "-o", place / "again.safetensors",
         "--scheme", report["scheme"]], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (place / "again.safetensors").read_bytes() == chosen


def test_a_speed_is_kept_with_what_it_allows(choose, flexllm, low):
    fastest = low["budget"]["modelled_tokens_per_s_low"]
    slow = choose("--budget", "speed=1")
    assert raised(slow) == 8
    target = 0.5 * (fastest + slow["budget"]["modelled_tokens_per_s"])
    report = choose("--budget", f"speed={target}")
    assert 0 < raised(report) < 8
    assert report["budget"]["modelled_tokens_per_s"] >= target
    assert 0 < report["budget"]["over_float"] < low["budget"]["over_float"]
    done, output = flexllm("--budget", f"speed={1.1 * fastest}")
    assert done.returncode == 3 and not output.exists()
    assert f"the closest is {LOW} itself, which decodes {fastest:.1f} tokens/s" in done.stderr


def test_the_accelerator_counts(choose, low):
    other = choose("--budget", "ppl=+100000%", "--accelerator", "u280-paper")
    assert other["sensitivities"] == low["sensitivities"]
    assert other["budget"]["modelled_tokens_per_s"] != low["budget"]["modelled_tokens_per_s"]


@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_the_same_every_time_and_with_gptq(choose, place, threads):
    options = ("--method", "gptq", "--budget", "speed=1", "--high", "w8a8", "--threads", threads)
    report = choose(*options)
    assert report["scheme"].count("=w8a8") == 4
    kept = place / "gptq.json"
    if kept.exists():
        assert json.loads(kept.read_text()) == report
    kept.write_text(json.dumps(report))


def test_gptq_is_judged_by_text_that_it_has_not_seen(flexllm, place):
    texts = place / "cache" / "calibration"
    done, _ = flexllm("--method", "gptq", "--budget", "speed=1")
    assert done.returncode == 0, done.stderr
    windows = [json.loads(text.read_text()) for text in texts.iterdir()]
    assert sorted(len(text) for text in windows) == [3, 4]
    assert not {tuple(w) for w in windows[0]} & {tuple(w) for w in windows[1]}


def test_sensitivities_are_kept_in_a_file(flexllm, choose, place):
    file = place / "sensitivity.json"
    first = choose("--budget", "speed=1", "--sensitivity", file)
    assert json.loads(file.read_text())["sensitivities"] == first["sensitivities"]
    done, _ = flexllm("--budget", "speed=2", "--sensitivity", file)
    assert done.returncode == 0 and "measuring" not in done.stderr
    assert "predicted\n" in done.stdout  # nothing was rounded, so nothing could be measured
    for options, what in ((("--high", "w8a8"), "high"), (("--method", "gptq"), "rounding"),
                          (("--sensitivity-tokens", 20), "tokens"),
                          (("--calibration-seed", 7), "text")):
        done, output = flexllm("--budget", "speed=1", "--sensitivity", file, *options)
        assert done.returncode == 2 and f"is of another {what} (" in done.stderr, done.stderr
        assert not output.exists()
    good = file.read_text()
    for damaged in ("", "[]", "{}", good[: len(good) // 2], good.replace('"o"', '"q"'),
                    good.replace('"divergence": ', '"divergence": 1e999, "other": ')):
        file.write_text(damaged)
        done, output = flexllm("--budget", "speed=1", "--sensitivity", file)
        assert done.returncode == 2 and "is damaged" in done.stderr, damaged
        assert not output.exists()
    done, _ = flexllm("--budget", "speed=1", "--sensitivity", place)
    assert done.returncode == 2 and "cannot be read" in done.stderr


def test_text_may_be_given(choose, low, place):
    text = place / "text.txt"
    text.write_text("abba" * 80)
    report = choose("--budget", "ppl=+100000%", "--budget-text", text)
    assert report["sensitivities"] != low["sensitivities"]


@pytest.mark.parametrize(("arguments", "message"), [
    (("--budget", "ppl=3%"), "--budget: 'ppl=3%' is neither"),
    (("--budget", "ppl=+3"), "is neither ppl=+N% nor speed=TOKENS_PER_S"),
    (("--budget", "ppl=+0%"), "with a number above 0"),
    (("--budget", "ppl=+nan%"), "is neither"),
    (("--budget", "ppl=+%"), "is neither"),
    (("--budget", "speed=-1"), "is neither"),
    (("--budget", "speed=fast"), "is neither"),
    (("--budget", "ppl=+3%", "--high", "w9"), "--high: 'w9' is no precision"),
    (("--budget", "ppl=+3%", "--high", "w8a8kv8-lm8"), "--high: 'w8a8kv8-lm8' is no precision"),
    (("--budget", "ppl=+3%", "--high", "w4a8"), "--high: w4a8 has no more bits than w4g64a8"),
    (("--budget", "ppl=+3%", "--high", "w8a4"), "--high: w8a4 has no more bits than w4g64a8"),
    (("--budget", "ppl=+3%", "--accelerator", "u50"), "there is no 'u50'"),
    (("--budget", "ppl=+3%", "--budget-text", "/nowhere"), "--budget-text: cannot read /nowhere"),
    (("--budget", "ppl=+3%", "--sensitivity", "/nowhere/x"), "/nowhere/x has no folder"),
    (("--budget", "ppl=+3%", "--scheme", f"{LOW}:" + ",".join(f"0-1.{kind}=w8a8" for kind in KINDS)),
     "every matrix is an exception of --scheme"),
    (("--high", "w8a8"), "--high belongs to --budget"),
    (("--sensitivity", "x"), "--sensitivity belongs to --budget"),
])
def test_it_refuses(flexllm, arguments, message):
    done, output = flexllm(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not output.exists()
