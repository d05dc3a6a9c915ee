"""tally.py counts what ctest and pytest wrote, and counts what was skipped as failed under CI."""

import os
import pathlib
import subprocess
import sys

TALLY = pathlib.Path(__file__).parents[1] / "tally.py"
CTEST = """<testsuite tests="4">
  <testcase name="a.good" classname="a.good" status="run"><system-out>fine</system-out></testcase>
  <testcase name="a.bad" classname="a.bad" status="fail">
    <failure message=""/><system-out>expected 1, got 2</system-out></testcase>
  <testcase name="a.gone" classname="a.gone" status="notrun"><skipped message="Unable to find executable"/></testcase>
  <testcase name="a.off" classname="a.off" status="disabled"><skipped message="Disabled"/></testcase>
</testsuite>"""
PYTEST = """<testsuites><testsuite tests="2">
  <testcase classname="tests.test_a" name="test_good"/>
  <testcase classname="tests.test_a" name="test_bad"><failure message="assert 1 == 2">where</failure></testcase>
</testsuite></testsuites>"""


def tally(tmp_path, *texts, ci="", options=()):
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"{number}.xml")
        files[-1].write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | ({"CI": ci} if ci else {})
    return subprocess.run(
        [sys.executable, TALLY, *options, *files], capture_output=True, text=True, check=False, env=environment
    )


def last_line(result):
    return result.stdout.splitlines()[-1]


def test_adds_up_and_shows_what_failed(tmp_path):
    result = tally(tmp_path, CTEST, PYTEST)
    assert last_line(result) == "2 passed, 2 failed"
    assert result.returncode == 1
    assert "expected 1, got 2" in result.stdout and "where" in result.stdout
    assert "2 skipped" in result.stdout and "fine" not in result.stdout


def test_skipped_is_failed_under_ci(tmp_path):
    assert last_line(tally(tmp_path, CTEST, ci="true")) == "1 passed, 3 failed"


def test_a_lost_stage_is_a_failure(tmp_path):
    good = '<testsuite><testcase name="a" status="run"/></testsuite>'
    assert tally(tmp_path, good).returncode == 0
    result = tally(tmp_path, good, options=["--lost", "asan"])
    assert (last_line(result), result.returncode) == ("1 passed, 1 failed", 1)


def test_nothing_is_not_success(tmp_path):
    result = tally(tmp_path, "<testsuite/>")
    assert (last_line(result), result.returncode) == ("0 passed, 0 failed", 1)


def test_quiet_names_and_counts_only(tmp_path):
    result = tally(tmp_path, CTEST, options=["--quiet"])
    assert "failed: a.bad" in result.stdout and "expected 1" not in result.stdout
