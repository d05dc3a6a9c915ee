#!/usr/bin/env python3
"""Holds the synthesizable kernels to what HLS compilers take, by clang's AST: README.md here.

    kernel_subset.py --root .

Parses every header of kernels/, the tops of an accelerator and those of the testbenches, with all
templates that they instantiate, as C++14 with the stand-ins of kernel_subset/ for AMD's headers and
for the directives. Prints `file:line: what` for each violation. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

STAND_INS = Path(__file__).resolve().parent / "kernel_subset"
FOLDERS = ("contract", "hls", "modules", "tops")
# Headers of the C simulation, which no HLS compiler sees.
HOST_HEADERS = {"hls/clock.h", "hls/simulation.h", "hls/stream_time.h", "hls/timeline.h",
                "tops/csim.h", "tops/timed_run.h"}
INCLUDES = {"cstdint", "ap_int.h", "hls_stream.h"}
ALLOCATORS = {"malloc", "calloc", "realloc", "free", "alloca"}
LOOPS = {"ForStmt", "WhileStmt", "DoStmt", "CXXForRangeStmt"}
FUNCTIONS = {"FunctionDecl", "CXXMethodDecl", "CXXConstructorDecl", "CXXDestructorDecl",
             "CXXConversionDecl"}
FORBIDDEN = {
    "CXXNewExpr": "dynamic allocation", "CXXDeleteExpr": "dynamic allocation",
    "CXXThrowExpr": "an exception", "CXXTryStmt": "an exception", "CXXTypeidExpr": "RTTI",
    "CXXDynamicCastExpr": "RTTI", "GotoStmt": "goto", "IndirectGotoStmt": "goto",
}
# Of these an expression is constant if its parts are.
COMPOUND_EXPRESSIONS = {"ParenExpr", "ImplicitCastExpr", "CStyleCastExpr", "CXXStaticCastExpr",
                        "CXXFunctionalCastExpr", "BinaryOperator", "ConditionalOperator",
                        "UnaryOperator", "MaterializeTemporaryExpr", "CXXUnresolvedConstructExpr",
                        "InitListExpr"}
CONSTANTS = {"IntegerLiteral", "FloatingLiteral", "CXXBoolLiteralExpr", "CharacterLiteral",
             "UnaryExprOrTypeTraitExpr", "SubstNonTypeTemplateParmExpr", "ConstantExpr",
             "DependentScopeDeclRefExpr", "SizeOfPackExpr"}


def children(node: dict) -> list[dict]:
    return node.get("inner", [])


def types_of(node: dict) -> list[str]:
    kind = node.get("type", {})
    return [kind[key] for key in ("qualType", "desugaredQualType") if key in kind]


def descend(node: dict):
    yield node
    for child in children(node):
        yield from descend(child)


def place(location: dict) -> dict:
    """Where a macro is used, not where it is written."""
    return location.get("expansionLoc", location)


@dataclass
class Function:
    name: str
    at: tuple[str, int]
    constexpr: bool
    calls: set[str] = field(default_factory=set)  # at run time


class Checker:
    """Rules over one translation unit."""

    def __init__(self, tree: dict, owned):
        self.owned = owned  # path -> whether the rules hold for it
        self.violations: set[tuple[str, int, str]] = set()
        self.variables: dict[str, dict] = {}
        self.functions: dict[str, Function] = {}
        self.canonical: dict[str, str] = {}  # declaration -> first declaration
        self.markers: dict[str, str] = {}
        self.library: set[str] = set()  # declarations of namespace std
        self.called_constexpr: set[str] = set()
        self.placed: set[str] = set()  # pipeline markers that stand where they must
        self.counters: set[str] = set()  # variables of bounded loops, by which inner loops may end
        self.unrolled_counters: set[str] = set()
        self.file, self.line = "", 0
        self.locate(tree)
        self.index(tree, "")
        self.visit(tree, None, False, "file")
        self.check_recursion()

    # Positions: the dump leaves out what has not changed since the last one it wrote.
    def locate(self, node: dict):
        for key in ("loc", "range"):
            value = node.get(key, {})
            for part in ([value] if key == "loc" else [value.get("begin", {}),
                                                       value.get("end", {})]):
                for spot in ([part["spellingLoc"], part["expansionLoc"]]
                             if "spellingLoc" in part else [part]):
                    if "offset" in spot:
                        self.file = spot.get("file", self.file)
                        self.line = spot.get("line", self.line)
                        spot["at"] = (self.file, self.line)
        for child in children(node):
            self.locate(child)

    @staticmethod
    def at(node: dict) -> tuple[str, int]:
        for spot in (node.get("loc", {}), node.get("range", {}).get("begin", {})):
            if "at" in place(spot):
                return place(spot)["at"]
        return ("", 0)

    def report(self, node: dict, what: str):
        file, line = self.at(node)
        if self.owned(file):
            self.violations.add((file, line, what))

    def index(self, node: dict, space: str):
        kind, key = node.get("kind", ""), node.get("id", "")
        if kind == "NamespaceDecl" and space == "":
            space = node.get("name", "-")
        elif kind == "VarDecl":
            self.variables[key] = node
        elif kind in FUNCTIONS:
            first = node.get("previousDecl", key)
            self.canonical[key] = self.canonical.get(first, first)
            if space == "hls_marker":
                self.markers[key] = node["name"]
            if self.canonical[key] not in self.functions:
                self.functions[self.canonical[key]] = Function(
                    node.get("name", ""), self.at(node), node.get("constexpr", False))
        if space == "std" and kind.endswith("Decl"):
            self.library.add(key)
        for child in children(node):
            self.index(child, space)

    def marker(self, statement: dict) -> str:
        if statement.get("kind") != "CallExpr":
            return ""
        for node in descend(children(statement)[0]):
            if node.get("kind") == "DeclRefExpr":
                return self.markers.get(node["referencedDecl"]["id"], "")
        return ""

    # The walk. `function` is the one that runs the code, None where values are constants;
    # `pipelined` holds inside a pipelined loop; `scope` is file, class or function.
    def visit(self, node: dict, function: Function | None, pipelined: bool, scope: str):
        kind = node.get("kind", "")
        self.check_node(node, scope)
        if kind in FUNCTIONS:
            function = self.functions[self.canonical[node["id"]]]
            scope = "function"
            if any(self.marker(s) == "dataflow" for s in self.statements_of_function(node)):
                self.check_region(node)
        elif kind in ("CXXRecordDecl", "ClassTemplateSpecializationDecl",
                      "ClassTemplatePartialSpecializationDecl"):
            scope = "class"
        elif kind == "ConstantExpr" or (kind == "VarDecl" and node.get("constexpr")):
            function = None
        elif kind in LOOPS:
            pipelined = self.check_loop(node, pipelined)
        elif kind in ("DeclRefExpr", "MemberExpr"):
            self.note_use(node, function)
        elif self.marker(node) == "pipeline" and node["id"] not in self.placed:
            self.report(node, "HLS_PIPELINE is not the first statement of a loop's body")
        for child in children(node):
            self.visit(child, function, pipelined, scope)

    def note_use(self, node: dict, function: Function | None):
        decl = node.get("referencedDecl", {})
        key = decl.get("id", node.get("referencedMemberDecl", ""))
        if key in self.library:
            self.report(node, f"std::{decl.get('name', '')} is not of <cstdint>")
        if decl.get("name", "").removeprefix("__builtin_") in ALLOCATORS:
            self.report(node, "dynamic allocation")
        if function is not None and key in self.canonical:
            function.calls.add(self.canonical[key])

    def check_node(self, node: dict, scope: str):
        kind = node.get("kind", "")
        if kind in FORBIDDEN:
            self.report(node, FORBIDDEN[kind])
        if node.get("virtual") and kind in FUNCTIONS:
            self.report(node, "a virtual function")
        types = types_of(node)
        if kind in ("VarDecl", "ParmVarDecl", "FieldDecl", "TypedefDecl", "TypeAliasDecl"):
            if any(re.search(r"\(\*[^)]*\)\s*\(|::\*", t) for t in types):
                self.report(node, "a pointer to a function")
        if kind == "CXXRecordDecl" and any("std::" in t for base in node.get("bases", [])
                                           for t in base["type"].values()):
            self.report(node, "a base class of std::")
        for text in types:
            if re.search(r"\bstd::(?!u?int\w*_t\b|size_t\b)", text):
                self.report(node, "a type of std:: that is not of <cstdint>")
            if kind not in FUNCTIONS and re.fullmatch(r"(const )?(long )?double", text):
                self.report(node, "arithmetic in double precision")
        if kind == "VarDecl" and not node.get("constexpr"):
            lasting = scope != "function" or node.get("storageClass") in ("static", "extern")
            if node.get("tls") or (lasting and not types[0].startswith("const ")):
                self.report(node, "a mutable static or global variable")

    @staticmethod
    def statements_of_function(node: dict) -> list[dict]:
        for child in children(node):
            if child.get("kind") == "CompoundStmt":
                return children(child)
        return []

    # Loops.
    def body(self, loop: dict) -> list[dict]:
        parts = children(loop)
        node = parts[0] if loop["kind"] == "DoStmt" else parts[-1]
        return children(node) if node.get("kind") == "CompoundStmt" else [node]

    def check_loop(self, loop: dict, pipelined: bool) -> bool:
        """Returns whether the body runs in a pipelined loop."""
        marks = [(self.marker(s), s["id"]) for s in self.body(loop) if s]
        names = [name for name, _ in marks]
        leading = []
        for name in names:
            if not name:
                break
            leading.append(name)
        unrolled = "unroll" in leading
        outer = self.unrolled_counters if unrolled else self.counters
        own = self.counter(loop, outer)
        bounded = self.bounded(loop, own, outer)
        if bounded:
            self.counters |= own
            self.unrolled_counters |= own if unrolled else set()
        if "trips" in names and "trips" not in leading:
            self.report(loop, "HLS_TRIPS is not among the first statements of the loop's body")
        if not bounded and unrolled:
            self.report(loop, "an unrolled loop whose bound is not a compile-time constant")
        elif not bounded and "trips" not in names:
            self.report(loop, "a loop without a constant bound and without HLS_TRIPS")
        if pipelined and not unrolled:
            self.report(loop, "a loop inside a pipelined loop is not unrolled")
        for name, key in marks[:2]:
            if name == "pipeline":
                self.placed.add(key)
            if name != "trips":
                break
        return pipelined or "pipeline" in names

    def counter(self, loop: dict, outer: set[str]) -> set[str]:
        """What a for loop declares and starts at a constant."""
        if loop["kind"] != "ForStmt":
            return set()
        return {var["id"] for var in children(children(loop)[0]) if var.get("kind") == "VarDecl"
                and children(var) and self.constant(children(var)[-1], outer)}

    def bounded(self, loop: dict, own: set[str], outer: set[str]) -> bool:
        if loop["kind"] == "CXXForRangeStmt":
            return any(re.search(r"\[\d+\]", t) for node in children(loop)
                       for var in children(node) if var.get("name", "").startswith("__range")
                       for t in types_of(var))
        if loop["kind"] != "ForStmt":
            return False
        _, _, condition, step, _ = children(loop)
        stepped = any(node.get("referencedDecl", {}).get("id") in own for node in descend(step))
        return stepped and any(part.get("opcode") in ("<", "<=", ">", ">=", "!=")
                               and self.constant(part, own | outer)
                               and any(node.get("referencedDecl", {}).get("id") in own
                                       for node in descend(part))
                               for part in self.conjuncts(condition))

    def conjuncts(self, condition: dict) -> list[dict]:
        while condition.get("kind") in ("ParenExpr", "ImplicitCastExpr", "ExprWithCleanups"):
            condition = children(condition)[0]
        if condition.get("kind") == "BinaryOperator" and condition.get("opcode") == "&&":
            return [part for child in children(condition) for part in self.conjuncts(child)]
        return [condition]

    def constant(self, node: dict, own: set[str]) -> bool:
        kind = node.get("kind", "")
        if kind in CONSTANTS or (kind == "CXXDependentScopeMemberExpr" and not children(node)):
            return True  # the latter is K::member in a member function of a template
        if kind == "DeclRefExpr":
            decl = node["referencedDecl"]
            if decl["kind"] in ("EnumConstantDecl", "NonTypeTemplateParmDecl") or decl["id"] in own:
                return True
            variable = self.variables.get(decl["id"], {})
            if variable.get("constexpr"):
                return True
            return bool(types_of(variable) and types_of(variable)[0].startswith("const ")
                        and children(variable) and self.constant(children(variable)[-1], own))
        if kind == "CallExpr":
            callee, *arguments = children(node)
            known = [self.functions[self.canonical[n["referencedDecl"]["id"]]].constexpr
                     if n["kind"] == "DeclRefExpr" and n["referencedDecl"]["id"] in self.canonical
                     else n["kind"] == "UnresolvedLookupExpr"
                     for n in descend(callee)
                     if n["kind"] in ("DeclRefExpr", "UnresolvedLookupExpr")]
            return any(known) and all(self.constant(a, own) for a in arguments)
        return kind in COMPOUND_EXPRESSIONS and all(self.constant(c, own) for c in children(node))

    # Streams of a region: what tasks mention them, in the order of the source.
    def check_region(self, function: dict):
        streams, tasks = {}, []
        for node in descend(function):
            if node.get("kind") in ("VarDecl", "ParmVarDecl") and any(
                    re.match(r"(\w+::)*(Fifo|Stream|stream)<", t) for t in types_of(node)):
                streams[node["id"]] = node
            if node.get("kind") == "CompoundStmt" and children(node) \
                    and self.marker(children(node)[0]) == "task":
                tasks.append(node)
        mentions = {key: 0 for key in streams}
        for task in tasks:
            for node in descend(task):
                key = node.get("referencedDecl", {}).get("id")
                if node.get("kind") == "DeclRefExpr" and key in mentions:
                    mentions[key] += 1
        for key, node in streams.items():
            local = node["kind"] == "VarDecl"
            array = re.search(r"\[[^\[\]]*\]$", types_of(node)[0]) or "(&)" in types_of(node)[0]
            count, name = mentions[key], node.get("name", "")
            if local and (count < 2 if array else count != 2):
                self.report(node, f"stream '{name}' is passed to {count} tasks: it has one writer "
                                  "and one reader")
            if not local and not array and count > 1:
                self.report(node, f"stream '{name}' is passed to {count} tasks: a region has one "
                                  "end of a stream that it is given")

    # Cycles of calls; functions that only compute constants may recurse.
    def check_recursion(self):
        for key, function in self.functions.items():
            seen, open_ = set(), list(function.calls)
            while open_:
                callee = open_.pop()
                if callee not in seen and callee in self.functions:
                    seen.add(callee)
                    open_ += self.functions[callee].calls
            if key not in seen or not self.owned(function.at[0]):
                continue
            runs = not function.constexpr or any(
                key in other.calls for name, other in self.functions.items() if name != key)
            if runs:
                self.violations.add((*function.at, f"'{function.name}' calls itself"))


def find_clang() -> str:
    return shutil.which("clang-14") or shutil.which("clang") or "clang-14"


def dump(clang: str, source: Path, includes: list[Path]) -> tuple[dict, list[tuple]]:
    """The AST, and the violations that clang itself reports."""
    command = [clang, "-xc++", "-std=c++14", "-fsyntax-only", "-fno-caret-diagnostics", "-Wno-everything",
               "-Werror=vla", *[f"-I{path}" for path in includes],
               "-Xclang", "-ast-dump=json", str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    found = []
    for line in result.stderr.splitlines():
        match = re.match(r"(.*?):(\d+):\d+: (?:fatal )?error: (.*)", line)
        if match and "-Wvla" in match[3]:
            found.append((match[1], int(match[2]), "an array of variable length"))
        elif match:
            found.append((match[1], int(match[2]), f"does not compile: {match[3]}"))
    if not result.stdout:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr}")
    return json.loads(result.stdout), found


def check_source(clang: str, source: Path, includes: list[Path], owned) -> set[tuple]:
    sys.setrecursionlimit(20000)
    tree, found = dump(clang, source, [STAND_INS, *includes])
    return {v for v in found if owned(v[0])} | Checker(tree, owned).violations


def check_includes(path: Path) -> set[tuple]:
    return {(str(path), number, f"<{match[1]}> is not for HLS compilers")
            for number, line in enumerate(path.read_text().splitlines(), 1)
            if (match := re.match(r"#include <(.*)>", line)) and match[1] not in INCLUDES}


def headers(root: Path) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((root / "kernels" / folder).glob("*.h"))
            if f"{folder}/{path.name}" not in HOST_HEADERS]


def check_stand_ins(root: Path) -> set[tuple]:
    """The stand-ins must know every directive."""
    found = set()
    for name in ("pragmas.h", "task.h"):
        real, ours = (set(re.findall(r"#define (HLS_\w+)", (folder / "kernels/hls" / name)
                                     .read_text())) for folder in (root, STAND_INS))
        for macro in sorted((real ^ ours) - {"HLS_PRAGMA", "HLS_TIME"}):
            found.add((str(STAND_INS / "kernels/hls" / name), 1,
                       f"{macro} is not in both this file and kernels/hls/{name}"))
    return found


def generate(root: Path, accelerator: str, out: Path) -> list[Path]:
    config = root / "configs/accelerators" / f"{accelerator}.json"
    name = accelerator.replace("-", "_")
    for script, *arguments in (("kernel_tops.py", out),
                               ("accelerator.py", "--header", out / f"accelerators/{name}.h")):
        subprocess.run([sys.executable, root / "scripts" / script, config, *arguments], check=True)
    return [path for path in sorted(out.glob("*.cpp")) if path.name != "csim.cpp"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--clang", default=find_clang())
    parser.add_argument("--accelerator", default="u280-combined")
    options = parser.parse_args()
    root = options.root.resolve()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        everything = out / "headers.cc"
        everything.write_text("".join(f'#include "{path.relative_to(root)}"\n'
                                      for path in headers(root)))
        sources = [everything, *generate(root, options.accelerator, out),
                   *sorted((root / "kernels/testbench").glob("*_top.cpp"))]
        places = (str(root / "kernels"), folder)
        found = check_stand_ins(root)
        for path in headers(root):
            found |= check_includes(path)
        for source in sources:
            found |= check_source(options.clang, source, [root, out],
                                  lambda file: file.startswith(places))
    for file, line, what in sorted(found):
        print(f"{file.removeprefix(str(root) + '/')}:{line}: {what}")
    print(f"{len(headers(root))} headers and {len(sources) - 1} tops: {len(found)} violations",
          file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
