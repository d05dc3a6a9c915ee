"""One house rule at a time over the project's own files; README.md here lists the rules.

Status 1, with one line per finding, when a rule is broken.
"""

import argparse
import pathlib
import re
import subprocess
import sys

CXX = {".cc", ".cpp", ".h", ".hpp"}
CODE = CXX | {".py", ".cmake", ".sh", ".js", ".css", ".html", ".json", ".txt", ""}
ROOMS = ["formats", "tokenizer", "kernels", "host", "quantizer", "server", "cli", "configs", "scripts", "tests", "docs"]
MOST_LINES = 500


def own_files(root):
    """The project's files: what git tracks or would track; without git, all but build outputs."""
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        paths = [root / name for name in listing.stdout.decode().split("\0") if name]
    else:
        paths = [p for p in root.rglob("*") if not {"build", ".venv", ".git"} & set(p.relative_to(root).parts)]
    return sorted(p for p in paths if p.is_file() and not p.is_symlink())


def lines_of(paths, suffixes):
    for path in paths:
        if path.suffix in suffixes:
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                yield path, number, line


def matching(root, paths, suffixes, pattern, allowed=None):
    for path, number, line in lines_of(paths, suffixes):
        if re.search(pattern, line) and not (allowed and re.search(allowed, line)):
            yield f"{path.relative_to(root)}:{number}: {line.strip()}"


def check_includes(root, paths, _):
    yield from matching(root, paths, CXX, r'#\s*include\s+["<]\.\.?/')
    for path in paths:
        if path.suffix in {".h", ".hpp"} and "#pragma once" not in path.read_text(encoding="utf-8"):
            yield f"{path.relative_to(root)}: has no #pragma once"


def check_format(root, paths, options):
    if not options.clang_format:
        yield "clang-format is not installed"
        return
    files = [str(p) for p in paths if p.suffix in CXX]
    found = subprocess.run(
        [options.clang_format, "--dry-run", "-Werror", *files], capture_output=True, text=True, check=False, cwd=root
    )
    if found.returncode != 0:
        yield from sorted({line.split(":")[0].removeprefix(f"{root}/") for line in found.stderr.splitlines() if ": error:" in line}) or [found.stderr]


def check_lengths(root, paths, _):
    reasons = {}
    for line in (root / "tests/house/long_files.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(": ")
            reasons[name] = reason
    long_ones = {}
    for path in paths:
        if path.suffix in CXX | {".py", ".js", ".cmake", ".sh"}:
            count = len(path.read_text(encoding="utf-8").splitlines())
            if count > MOST_LINES:
                long_ones[str(path.relative_to(root))] = count
    for name, count in long_ones.items():
        if not reasons.get(name):
            yield f"{name}: {count} lines, more than {MOST_LINES}, and no reason in tests/house/long_files.txt"
    for name in reasons.keys() - long_ones.keys():
        yield f"{name}: listed in tests/house/long_files.txt, but it is not long (any more)"


def anchors(path):
    """The ids that GitHub gives to the headings of a Markdown file."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for heading in re.findall(r"^#+\s+(.*)$", text, flags=re.M):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def check_links(root, paths, _):
    for path in (p for p in paths if p.suffix == ".md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.S)
        targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href|srcset)="([^"]+)"', text)
        for target in targets:
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            goal = (path.parent / name).resolve() if name else path
            if not goal.exists():
                yield f"{path.relative_to(root)}: {target} leads nowhere"
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal):
                yield f"{path.relative_to(root)}: {target} names no heading of that page"


def check_index(root, paths, _):
    for path in (p for p in paths if p.suffix == ".md" and p.is_relative_to(root / "docs")):
        index = path.parent / "README.md"
        if path != index and index in paths and f"]({path.name})" not in index.read_text(encoding="utf-8"):
            yield f"{path.relative_to(root)}: not listed in {index.relative_to(root)}"


def check_paths(root, paths, _):
    return matching(root, paths, CODE, r"(^|[^A-Za-z0-9_.])/(work|tmp|root|home/[a-z]+)/", r"mktemp|/tmp/\$|TMPDIR")


def check_readmes(root, paths, _):
    for room in ROOMS:
        readme = root / room / "README.md"
        if not any(p.is_relative_to(root / room) for p in paths):
            continue
        if readme not in paths:
            yield f"{room}/README.md is missing"
        elif room not in {"docs", "tests", "scripts", "configs"} and not re.search(
            "depend", readme.read_text(encoding="utf-8"), flags=re.I
        ):
            yield f"{room}/README.md does not say what the room may depend on"


def check_skips(root, paths, _):
    return matching(root, paths, CXX | {".py"}, "GTEST_" r"SKIP|\bDISABLED" r"_|pytest\.mark\.sk" r"ip|pytest\.sk" r"ip|importor" "skip")


def check_leftovers(root, paths, _):
    return matching(root, paths, CODE - {".json"}, r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|\bfor n" r"ow\b")


def check_shell(root, paths, _):
    scripts = [str(p) for p in paths if p.suffix == ".sh" or (not p.suffix and p.read_bytes().startswith(b"#!/usr/bin/env bash"))]
    try:
        found = subprocess.run(["shellcheck", "-f", "gcc", *scripts], capture_output=True, text=True, check=False, cwd=root)
    except FileNotFoundError:
        yield "shellcheck is not installed"
        return
    yield from found.stdout.splitlines()


def main():
    checks = {name[len("check_") :]: f for name, f in globals().items() if name.startswith("check_")}
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=sorted(checks))
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--clang-format", default="clang-format")
    options = parser.parse_args()
    root = options.root.resolve()
    findings = list(checks[options.check](root, own_files(root), options))
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
