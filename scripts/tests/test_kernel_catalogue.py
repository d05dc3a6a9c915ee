"""docs/modules.md is what scripts/kernel_catalogue.py writes, every module is explained and tested;
and the script finds what is not, on a copy of the tree that is broken on purpose."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import kernel_catalogue  # noqa: E402


def lacking(*arguments, root=ROOT):
    """The lines that say what is wrong."""
    result = run(*arguments, root=root)
    said = result.stderr.splitlines()
    assert result.returncode == (1 if said else 0)
    return said


def run(*arguments, root=ROOT):
    return subprocess.run([sys.executable, ROOT / "scripts/kernel_catalogue.py", "--root", root, *arguments],
                          capture_output=True, text=True, check=False)  # fmt: skip


def test_the_page_is_what_the_script_writes_and_no_module_lacks_anything():
    assert lacking("--check") == []


def test_every_header_and_module_has_its_place_once():
    page = (ROOT / "docs/modules.md").read_text()
    headings = re.findall(r"^#{2,3} (.*)$", page, re.M)
    assert len(headings) == len(set(headings))
    for path in (ROOT / "kernels/modules").glob("*.h"):
        assert path.name in headings
    assert {"normalize", "multiply_tiles", "load_tiles", "copy_inputs", "merge_stores"} <= set(headings)
    assert not {"multiply_lanes", "deal_heads", "TokenWalk"} & set(headings)  # compute, move nothing


@pytest.fixture
def tree(tmp_path):
    """A copy with a header of our own, and a page that fits."""
    for name in ("modules", "tops", "tests", "testbench"):
        shutil.copytree(ROOT / "kernels" / name, tmp_path / "kernels" / name)
    (tmp_path / "docs").mkdir()
    assert lacking(root=tmp_path) == []
    assert (tmp_path / "docs/modules.md").read_text() == (ROOT / "docs/modules.md").read_text()
    return tmp_path


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("header,old,new,said", [
    ("hadamard", "//   Interval  cycles a word; 16 / Interval adders a stage, 16 / Interval multipliers\n", "",
     "transform_blocks: its doc block does not explain Interval"),
    ("rope", "// Cycles: rows", "// Time: rows", "apply_rope: its doc block has no `Cycles:`"),
    ("hadamard", "template <uint32_t MaxBlock, uint32_t Interval = 1>",
     "\ntemplate <uint32_t MaxBlock, uint32_t Interval = 1>", "transform_blocks has no doc block"),
    ("queries", "typename Factors>", "typename Factors, typename Other>",
     "quantize_queries: its doc block does not explain Other"),
    ("norm", "void normalize(", "void normalize_rows(", "normalize_rows: no test or testbench names it"),
])  # fmt: skip
def test_finds_what_a_module_lacks(header, old, new, said, tree):
    change(tree / f"kernels/modules/{header}.h", old, new)
    assert f"kernels/modules/{header}.h: {said}" in lacking("--check", root=tree)


def test_finds_a_page_that_is_behind_and_writes_it(tree):
    change(tree / "kernels/modules/hadamard.h", "// Transforms `rows` rows", "// Turns `rows` rows")
    assert len(lacking("--check", root=tree)) == 1
    assert lacking(root=tree) == []
    assert "Turns `rows` rows" in (tree / "docs/modules.md").read_text()
    assert lacking("--check", root=tree) == []


def test_a_new_header_wants_a_place(tree):
    (tree / "kernels/modules/other.h").write_text("// Another.\n#pragma once\n")
    (tree / "kernels/modules/rope.h").unlink()
    said = run("--check", root=tree).stderr
    assert "other.h: no place in GROUPS" in said
    assert "rope.h: listed in GROUPS" in said


def test_reads_a_doc_block():
    summary, table, fields = kernel_catalogue.read_doc(
        ["What it does: much.", "  K, A     shape and", "           array", "Cycles: 2 * n; once 3.", "Memory: none. DSP: 4",
         "each."])  # fmt: skip
    assert summary == "What it does: much."
    assert table == {"K, A": "shape and array"}
    assert fields == {"Cycles": "2 * n; once 3.", "Memory": "none.", "DSP": "4 each."}
