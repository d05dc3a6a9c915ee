"""The house checks find what they are there to find, and leave the rest alone."""

import json
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent

BROKEN = {
    "includes": ("host/a.cc", '#include "../formats/a.h"\n'),
    "leftovers": ("host/a.cc", "int a;  // TO" "DO: finish\n"),
    "lengths": ("host/a.cc", "int a;\n" * 501),
    "links": ("docs/a.md", "[there](nowhere.md)\n"),
    "paths": ("host/a.cc", 'const char* kModel = "/ro' 'ot/model";\n'),
    "readmes": ("host/README.md", "# Host\n"),
    "shell": ("scripts/a", "#!/usr/bin/env bash\ncd $1\n"),
    "skips": ("host/a_test.cc", "TEST(A, B) { GTEST_" "SKIP(); }\n"),
    "index": ("docs/a.md", "# A page\n"),
    "format": ("host/a.cc", "int   a ;\n"),
}


def check(name, root):
    return subprocess.run(
        [sys.executable, HERE / "check.py", name, "--root", root], capture_output=True, text=True, check=False
    )


def project(folder, files):
    files = {"tests/house/long_files.txt": "", ".clang-format": "BasedOnStyle: Google\n"} | files
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", BROKEN)
def test_finds_what_is_broken(name, tmp_path):
    path, text = BROKEN[name]
    result = check(name, project(tmp_path, {"docs/README.md": "# Pages\n", path: text}))
    assert result.returncode == 1, result.stderr
    assert path in result.stdout


@pytest.mark.parametrize("name", BROKEN)
def test_accepts_what_is_whole(name, tmp_path):
    files = {f"{room}/README.md": "# A room\n\nMay depend on nothing.\n" for room in ("host", "docs", "scripts", "tests")}
    files["host/a.cc"] = '#include "host/a.h"\n\nint a;\n'
    files["host/a.h"] = "#pragma once\n"
    files["docs/a.md"] = "# A page\n\n[here](#a-page), [its room](README.md), [out](https://example.org)\n"
    files["docs/README.md"] += "\n[a](a.md)\n"
    files["scripts/a"] = '#!/usr/bin/env bash\ncd "$1" || exit\n'
    result = check(name, project(tmp_path, files))
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_a_long_file_needs_a_reason_and_a_reason_needs_a_long_file(tmp_path):
    project(tmp_path, {"host/a.cc": "int a;\n" * 501, "tests/house/long_files.txt": "host/a.cc: one table\n"})
    assert check("lengths", tmp_path).returncode == 0
    project(tmp_path, {"host/a.cc": "int a;\n", "tests/house/long_files.txt": "host/a.cc: one table\n"})
    assert check("lengths", tmp_path).returncode == 1


@pytest.mark.parametrize("reached,status", [("formats", 0), ("server", 1)])
def test_include_paths_follows_the_links(reached, status, tmp_path):
    (tmp_path / reached).mkdir()
    link = tmp_path / "build/include/some/folder"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / reached)
    command = {"file": f"{tmp_path}/host/a.cc", "command": f"c++ -I{link.parent} -c {tmp_path}/host/a.cc"}
    (tmp_path / "build/compile_commands.json").write_text(json.dumps([command]))
    result = subprocess.run(
        [sys.executable, HERE / "include_paths.py", "--root", tmp_path, "--build", tmp_path / "build",
         "--rooms", "host:formats formats: server:host"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == status, result.stdout + result.stderr
