"""accuracy_table.py with a program that only pretends: what is measured again, what the tables say, what is refused."""

import fcntl
import json
import math
import pathlib
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(SCRIPTS))
import accuracy_page  # noqa: E402

# Notes how it was called. A loss is 1 for float, and grows by what the scheme lacks.
FAKE = """#!{python}
import array, json, pathlib, sys
folder, words = pathlib.Path(__file__).parent, sys.argv[1:]
with open(folder / "calls", "a") as calls:
    print(*words, file=calls)
if (folder / "broken").exists() and words[0] == (folder / "broken").read_text():
    sys.exit("fake: broken")
value = lambda name: words[words.index(name) + 1]
if words[0] == "perplexity":
    size = 0.0 if "--float" in words else 0.5 if "--requantize" in words else float(pathlib.Path(words[1]).read_text())
    losses = array.array("f", [1 + size, 3 + size + size / 4])
    pathlib.Path(value("--losses")).write_bytes(losses.tobytes())
    report = dict(tokens=2, ppl=None, stderr=None, ppl_float=None, stderr_float=None)
    kind = "_float" if "--float" in words else ""
    report.update({{"ppl" + kind: 2.718281828 ** (sum(losses) / 2), "stderr" + kind: 0.1}})
    print(json.dumps(report))
elif words[0] == "quantize":
    size = 0.4 - 0.1 * ("gptq" in words) - 0.1 * ("--rotations" in words) - 0.05 * ("-r124" in value("--scheme"))
    pathlib.Path(value("-o")).write_text(str(size))
elif words[0] == "learn-rotations":
    pathlib.Path(value("-o")).write_text(value("--scheme"))
elif words[0] == "plan":
    if ":" in value("--scheme"):
        sys.exit(2)
    print(json.dumps(dict(decode=dict(tokens_per_s=123.4))))
else:
    print("fake 1.0")
"""


class Bench:
    def __init__(self, folder):
        self.folder, self.text = folder, folder / "text"
        self.text.write_text("words")
        self.program = folder / "flexllm"
        self.program.write_text(FAKE.format(python=sys.executable))
        self.program.chmod(0o755)

    def run(self, *arguments, text=True):
        given = ["--text", self.text] if text else []
        return subprocess.run([SCRIPTS / "accuracy-table", "--program", self.program, "--work", self.folder / "work",
                               *given, *map(str, arguments)], capture_output=True, text=True, check=False)  # fmt: skip

    def table(self, *arguments):
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def calls(self):
        """The subcommands since the last question, but for what the table itself asks."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.split()[0] for line in lines if line.split()[0] not in ("plan", "--version")]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def row(page, name):
    return next([field.strip() for field in line.split("|")[1:-1]] for line in page.splitlines() if f"`{name}`" in line)


def test_a_finished_cell_is_not_measured_again(bench):
    first = bench.table("--only", "float", "w4a8-learned-gptq")
    assert bench.calls() == ["perplexity", "learn-rotations", "quantize", "perplexity"]
    assert bench.table("--only", "float", "w4a8-learned-gptq") == first
    assert bench.calls() == []
    bench.table("--only", "w4a8-learned-gptq", "--tokens", 7)  # the packed model serves again
    assert bench.calls() == ["perplexity"]


def test_a_run_that_failed_goes_on_where_it_was(bench):
    (bench.folder / "broken").write_text("perplexity")
    done = bench.run("--only", "w4a8-rtn", "w4a8-gptq")
    assert done.returncode == 1 and "w4a8-rtn: measuring" in done.stderr and done.stdout == ""
    assert bench.calls() == ["quantize", "perplexity"]
    (bench.folder / "broken").unlink()
    bench.table("--only", "w4a8-rtn", "w4a8-gptq")
    assert bench.calls() == ["perplexity", "quantize", "perplexity"]
    losses = bench.folder / "work/cells-20000/w4a8-rtn.f32"
    losses.unlink()  # half a cell is none
    bench.table("--only", "w4a8-rtn")
    assert bench.calls() == ["perplexity"]


def test_measures_anew_what_is_asked(bench):
    bench.table("--only", "w8a8-rtn", "w4a8-learned-gptq")
    bench.calls()
    bench.table("--only", "w4a8-learned*", "--again")
    assert bench.calls() == ["learn-rotations", "quantize", "perplexity"]
    record = bench.folder / "work/cells-20000/w8a8-rtn.json"
    for damage in ("{", "{}", "[]"):
        record.write_text(damage)
        done = bench.run("--only", "w8a8-rtn")
        assert done.returncode == 1 and f"{record} is damaged" in done.stderr and "--again" in done.stderr
    bench.table("--only", "w8a8-rtn", "--again")


def test_a_mixed_scheme_that_changed_is_packed_anew(bench):
    mixed = bench.folder / "mine.txt"
    arguments = ("--mixed", mixed, "--only", "mine-rotated")
    mixed.write_text("w4a8kv8-lm8-r124:0.qkv=w8a8")
    bench.table(*arguments)
    mixed.write_text("w4a8kv8-lm8-r124:1.qkv=w8a8")
    done = bench.run(*arguments)
    assert done.returncode == 1 and "0.qkv=w8a8: measure it --again" in done.stderr
    bench.calls()
    bench.table(*arguments, "--again")
    assert bench.calls() == ["quantize", "perplexity"]


def test_a_folder_serves_one_run_at_a_time(bench):
    bench.table("--only", "float")
    with open(bench.folder / "work/.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = bench.run("--only", "float")
    assert done.returncode == 1 and "another run is busy" in done.stderr


def test_the_table(bench):
    mixed = bench.folder / "mine.txt"
    mixed.write_text("w4a8kv8-lm8-r124:\n 0-2.down=w8g64a8\n")
    page = bench.table("--mixed", mixed, "--only", "float", "q4_0", "w4a8-rtn", "w4a8-gptq", "mine-rotated")
    assert row(page, "float")[3:] == [f"{math.exp(2):.4f}", "", "", "", ""]
    names = ("float", "q4_0", "w4a8-rtn", "w4a8-gptq", "mine-rotated")
    assert sorted(names, key=lambda name: page.index(f"`{name}`")) == list(names)
    size = 0.4  # the losses are 1 and 3 more: differences of size and 1.25 size
    ratio = math.exp(1.125 * size)
    assert row(page, "w4a8-rtn")[4] == f"{ratio:.4f} ± {ratio * 0.125 * size:.4f}"
    gain = math.exp(-1.125 * 0.1)
    assert row(page, "w4a8-gptq")[5] == f"{100 * (gain - 1):+.2f} % ± {100 * gain * 0.0125:.2f} %"
    assert row(page, "w4a8-gptq")[7] == "123" and row(page, "mine-rotated")[7] == "not modelled"
    for word in ("measured", "modelled", "computed", "2 predictions", "--tokens 20000", "first 20,000"):
        assert word in page
    record = json.loads((bench.folder / "work/cells-20000/w4a8-gptq.json").read_text())
    assert (record["scheme"], record["method"], record["program"]) == ("w4a8kv8-lm8-r4", "gptq", "fake 1.0")
    assert record["date"] in page


def test_a_step_that_brings_nothing_is_called_so():
    class Cell:
        name, section, weights, step, base, scheme, block_format = "b", "s", "w", "h", "a", "", ""

    before = accuracy_page.Measured(Cell, {"ppl": 1.0}, [1.0, 2.0, 3.0])
    after = accuracy_page.Measured(Cell, {"ppl": 1.0}, [1.1, 1.95, 3.0])
    assert "no difference" in accuracy_page.row(after, {"a": before}, lambda _: None)
    after.losses = [0.9, 1.91, 2.9]
    assert "no difference" not in accuracy_page.row(after, {"a": before}, lambda _: None)


def test_bytes_are_those_of_the_layout():
    weights = 30 * (960 * 576 + 576 * 576 + 3 * 1536 * 576)
    rows = 30 * (960 + 576 + 2 * 1536 + 576)
    layers, lm_head = accuracy_page.weight_bytes("w4a8kv8-lm8-r4")
    assert layers == weights // 2 + 8 * rows  # scale and sum of every row
    assert lm_head == 49152 * (576 + 8)
    grouped, _ = accuracy_page.weight_bytes("w4g64a8kv8-lm8-r4")
    assert grouped - layers == 30 * ((960 + 576 + 2 * 1536) * 10 + 576 * 24)  # 9 and 24 groups, by pairs
    mixed, _ = accuracy_page.weight_bytes("w4a8kv8-lm8-r124:0-2.down=w8a8,5.qkv=w8a8")
    assert mixed - layers == (3 * 576 * 1536 + 960 * 576) // 2
    assert accuracy_page.block_format_bytes("q4_0")[0] == weights * 18 // 32


def test_writes_between_the_markers(bench):
    page = bench.folder / "page.md"
    page.write_text(f"before\n{accuracy_page.BEGIN}\nold\n{accuracy_page.END}\nafter\n")
    bench.table("--only", "w8a8-rtn", "--write", "--page", page)
    once = page.read_text()
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "old" not in once
    assert "`w8a8-rtn`" in once
    bench.table("--only", "q8_0", "--tokens", 0, "--write", "--page", page)
    assert page.read_text().index("`w8a8-rtn`") < page.read_text().index("whole text")  # both are there
    page.write_text("nothing")
    done = bench.run("--only", "w8a8-rtn", "--write", "--page", page)
    assert done.returncode == 1 and "markers" in done.stderr and page.read_text() == "nothing"


def test_the_page_has_the_markers():
    text = (SCRIPTS.parent / "docs/accuracy.md").read_text()
    assert accuracy_page.between_markers(text, "x") != text


def test_lists_what_is_measured(bench):
    bench.table("--only", "w8a8-rtn")
    lines = bench.run("--list", text=False).stdout.splitlines()
    assert [line.split()[0] for line in lines if line.endswith("measured")] == ["w8a8-rtn"]
    assert len({line.split()[0] for line in lines}) == len(lines) == 4 + 6 * 6 + 2 + 1


@pytest.mark.parametrize("arguments, word", [
    (["--only", "w3a8-rtn"], "no cell is called 'w3a8-rtn'"),
    (["--tokens", "-1"], "--tokens"),
    (["--tokens", "many"], "--tokens"),
    (["--mixed", "/no/scheme"], "/no/scheme"),
    (["--again"], "--again wants --only"),
    (["--text", "/no/text"], "/no/text"),
    (["--all"], "--all"),
])  # fmt: skip
def test_refuses_wrong_options(bench, arguments, word):
    done = bench.run(*arguments)
    assert done.returncode == 2 and word in done.stderr and done.stdout == ""
    assert bench.calls() == []


def test_refuses_a_missing_text_and_another_text(bench):
    done = bench.run("--only", "float", text=False)
    assert done.returncode == 2 and "--text FILE is required" in done.stderr
    bench.table("--only", "float")
    bench.text.write_text("other words")
    done = bench.run("--only", "float")
    assert done.returncode == 2 and "another text" in done.stderr


def test_refuses_mixed_schemes_that_it_cannot_place(bench):
    same = bench.folder / "w4a8.txt"
    same.write_text("w4a8kv8-lm8-r124:0.qkv=w8a8")
    done = bench.run("--mixed", same)
    assert done.returncode == 2 and "two cells w4a8-rotated" in done.stderr
    same.write_text("w4a8kv8-lm8:0.qkv=w8a8")
    done = bench.run("--mixed", same)
    assert done.returncode == 2 and "-r124" in done.stderr


def test_says_that_there_is_no_program(bench):
    bench.program.unlink()
    done = bench.run("--only", "float")
    assert done.returncode == 1 and str(bench.program) in done.stderr
