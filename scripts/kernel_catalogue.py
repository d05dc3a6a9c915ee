#!/usr/bin/env python3
"""Writes docs/modules.md, the catalogue of the kernels' modules, from their doc blocks.

    kernel_catalogue.py            writes the page, and says what a module lacks
    kernel_catalogue.py --check    writes nothing, and says if the page is not what would be written

A module is a void function of kernels/modules/ that reads or writes a stream or card memory, or calls
one that does. It must have a doc block with a line `Cycles:` that explains every template parameter
that no argument implies, and a test or a testbench must name it, or name what it is part of. Exit
status 1 if something is not so. Standard library only.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = "docs/modules.md"
FIELDS = ("Cycles", "Memory", "DSP")
GROUPS = (
    ("Data movers", "rows weights activations pages"),
    ("Norms and transforms", "norm hadamard softmax_rows"),
    ("Quantisers", "quantize quantizers"),
    ("Linear layers", "packed_products plane_array dequantize stores"),
    ("Heads", "heads rope"),
    ("Attention", "attention attention_plan queries lanes token_walk scores softmax values"),
    ("Outputs", "hidden_rows logits"),
    ("Shared parts", "types derived_sizes vector_sum add_subtract"),
)
INTRODUCTION = """# Kernel modules

<!-- Written by scripts/kernel_catalogue.py from the doc blocks of kernels/modules/. -->

Every module of `kernels/modules/`, as its doc block describes it. [kernels.md](kernels.md) shows how
they make kernels, and [new-module.md](new-module.md) how one is added; `scripts/kernel_catalogue.py`
writes this page. `K` is a shape (the maxima, ports and parallelism of a build) and `A` an array; both
are in [`types.h`](#typesh). Cycles are what the loops ask for; the latency of operators and memory
comes on top. No module has been synthesized, so memories and DSPs are counted from the source. Of
the tests, those without `.cpp` are testbenches that Vitis runs too, with `scripts/build-bitstream
u280-combined --module NAME`.
"""


@dataclass
class Declaration:
    header: str
    name: str
    doc: list[str]  # lines without their slashes
    head: str  # up to the body
    body: str
    is_function: bool
    is_module: bool = False
    parameters: list[str] = field(default_factory=list)  # of the template
    arguments: str = ""

    def __post_init__(self):
        match = re.match(r"template <((?:[^<>]|<[^<>]*>)*)>\s*", self.head)
        if match:
            for part in re.split(r",(?![^<]*>)", match[1]):
                words = part.split("=")[0].split()
                if len(words) > 1:
                    self.parameters.append(words[-1])
        if self.is_function:
            self.arguments = self.head[self.head.index(f"{self.name}(") + len(self.name):]
        self.summary, self.explained, self.fields = read_doc(self.doc)
        self.called = called_in(self.body)

    def moves(self) -> bool:
        """Whether it is a task itself; what calls one is a module too."""
        moves = r"\.(read|write)\(|\b(read|write)_word\("
        return self.is_void() and bool(re.search(moves, self.body) or "Stream<" in self.arguments)

    def is_void(self) -> bool:
        return self.is_function and bool(re.search(rf"\bvoid {self.name}\(", self.head))

    def implied(self, parameter: str) -> str:
        """The argument that a template parameter follows from, if there is one."""
        name = re.escape(parameter)
        match = re.search(rf"\b{name}\s*\(&(\w+)\)|(?:\b{name}|Stream<{name}>)\s*&\s*(\w+)",
                          self.arguments)
        return (match[1] or match[2]) if match else ""


def called_in(code: str) -> set[str]:
    return set(re.findall(r"\b(\w+)(?=[<(])", code))


def read_doc(lines: list[str]) -> tuple[str, dict[str, str], dict[str, str]]:
    """The text of a doc block, what it says of each name in its table, and of each field."""
    paragraphs, table, names = [[]], {}, []
    for line in lines:
        entry = re.match(r"  (\w+(?:, \w+)*)  +(\S.*)", line)
        if entry:
            names = entry[1].split(", ")
            table[", ".join(names)] = entry[2]
        elif names and line.startswith("    "):
            table[", ".join(names)] += " " + line.strip()
        elif not line.strip():
            names = []
            paragraphs.append([])
        else:
            names = []
            paragraphs[-1].append(line.strip())
    text = "\n\n".join(" ".join(p) for p in paragraphs if p)
    parts = re.split(rf"(?:^|(?<=\s))({'|'.join(FIELDS)})((?:, [a-z ]+)?):\s", text)
    fields = {}
    for name, qualifier, said in zip(parts[1::3], parts[2::3], parts[3::3]):
        fields[name] = (qualifier.removeprefix(", ") + ": " if qualifier else "") + said.strip()
    return parts[0].strip(), table, fields


def declarations(header: str, text: str) -> list[Declaration]:
    """What a header declares in its namespace; nothing there is indented."""
    found, doc, lines, i = [], [], text.splitlines(), 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("//"):
            doc.append(line[2:].removeprefix(" "))
        elif re.match(r"(template <|inline\b|static\b|void\b|struct\b|class\b|constexpr\b|typedef\b|enum\b)",
                      line):
            taken, depth, opened = [], 0, False
            while i < len(lines):
                taken.append(lines[i])
                code = lines[i].split("//")[0]
                depth += code.count("{") - code.count("}")
                opened = opened or "{" in code
                if depth == 0 and (opened or code.rstrip().endswith(";")):
                    break
                i += 1
            whole = "\n".join(taken)
            head, _, body = whole.partition("{")
            name = re.search(r"\b(?:struct|class|enum) (\w+)", head)
            function = None if name else re.search(r"\b(\w+)\(", head)
            if (name or function) and "operator" not in head and opened:
                found.append(Declaration(header, (name or function)[1], doc, head.strip(), body,
                                         function is not None))
            doc = []
        else:
            doc = []
        i += 1
    return found


def opening(text: str) -> str:
    """The comment that a header begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        lines.append(line[2:].removeprefix(" "))
    return "\n".join(lines)


class Catalogue:
    def __init__(self, root: Path):
        self.root = root
        modules = root / "kernels/modules"
        self.texts = {p.stem: p.read_text() for p in sorted(modules.glob("*.h"))}
        self.declared = {name: declarations(name, text) for name, text in self.texts.items()}
        regions = [declarations(f"tops/{p.stem}", p.read_text())
                   for p in sorted((root / "kernels/tops").glob("*.h"))]
        self.functions = [d for all_of in [*self.declared.values(), *regions] for d in all_of
                          if d.is_function]
        more = [d for d in self.functions if d.moves()]
        while more:
            for module in more:
                module.is_module = True
            more = [d for d in self.functions if d.is_void() and not d.is_module
                    and d.called & {m.name for m in more}]
        tests = [*sorted((root / "kernels/tests").glob("*.*")),
                 *sorted((root / "kernels/testbench").glob("*_top.cpp"))]
        self.tests = {p.relative_to(root).as_posix(): called_in(p.read_text()) for p in tests}

    def modules(self, header: str) -> list[Declaration]:
        """Of a header, those that are parts of others there behind them."""
        return sorted((d for d in self.declared[header] if d.is_module), key=self.is_part)

    def is_part(self, module: Declaration) -> bool:
        callers = self.callers(module)
        return bool(callers) and all(d.header == module.header for d in callers)

    def tests_of(self, name: str) -> list[str]:
        return [path for path, called in self.tests.items() if name in called]

    def callers(self, module: Declaration) -> list[Declaration]:
        return [d for d in self.functions if module.name in d.called and d is not module]

    def reached_by(self, module: Declaration, seen: frozenset = frozenset()) -> list[str]:
        """Tests that name it, else those that name what it is part of; of the regions of
        kernels/tops/ only those that a test names itself, not a whole kernel that is tested."""
        found = self.tests_of(module.name)
        if not found and module.header in self.texts and module.name not in seen:
            for caller in self.callers(module):
                found += self.reached_by(caller, seen | {module.name})
        return sorted(set(found))

    def problems(self) -> list[str]:
        found = []
        grouped = [name for _, names in GROUPS for name in names.split()]
        for name in sorted(set(self.texts) ^ set(grouped)):
            found.append(f"kernels/modules/{name}.h: " + (
                "no place in GROUPS of scripts/kernel_catalogue.py" if name in self.texts
                else "listed in GROUPS of scripts/kernel_catalogue.py, but not there"))
        for header in self.texts:
            for module in self.modules(header):
                where = f"kernels/modules/{header}.h: {module.name}"
                if not module.summary:
                    found.append(f"{where} has no doc block")
                elif "Cycles" not in module.fields:
                    found.append(f"{where}: its doc block has no `Cycles:`")
                told = {n for names in module.explained for n in names.split(", ")}
                for parameter in module.parameters:
                    if parameter not in told and not module.implied(parameter):
                        found.append(f"{where}: its doc block does not explain {parameter}")
                if not self.reached_by(module):
                    found.append(f"{where}: no test or testbench names it")
        return found

    def index(self, header: str) -> list[str]:
        rows = []
        wholes = [d for d in self.modules(header) if not self.is_part(d)]
        for i, module in enumerate(wholes):
            place = f"[`{header}.h`](#{header}h)" if i == 0 else ""
            rows.append(f"| {place} | [`{module.name}`](#{module.name}) | "
                        f"{first_clause(module.summary)} | "
                        f"{first_sentence(module.fields.get('Cycles', ''))} |")
        return rows or [f"| [`{header}.h`](#{header}h) | | "
                        f"{first_clause(opening(self.texts[header]).replace(chr(10), ' '))} | |"]

    def module(self, module: Declaration) -> list[str]:
        out = [f"### {module.name}", "", "```cpp", module.head + ";", "```", "",
               escape(module.summary), ""]
        table = dict(module.explained)
        for parameter in module.parameters:
            if not any(parameter in names.split(", ") for names in table):
                argument = module.implied(parameter)
                table[parameter] = f"type of the argument `{argument}`" if argument else "-"
        out += [f"- `{name}`: {escape(said)}" for name, said in table.items()]
        out += [""] if table else []
        for name in FIELDS:
            if name in module.fields:
                out += [f"**{name}:** {escape(module.fields[name])}", ""]
        callers = [f"[`{d.name}`](#{d.name})" if d.header in self.texts else f"`{d.name}`"
                   for d in self.callers(module)]
        reached = self.reached_by(module)
        benches = [p for p in reached if p.endswith("_top.cpp")]
        links = [f"[`{Path(p).name}`](../{p})" for p in reached if p not in benches]
        links += [f"[`{Path(p).name.removesuffix('_top.cpp')}`](../{p.replace('_top', '_main')})"
                  for p in benches]
        said = [f"Part of {', '.join(callers)}."] if callers else []
        if links:
            said.append(("Tests: " if self.tests_of(module.name) else "Tested as a part: ")
                        + ", ".join(links) + ".")
        return out + [" ".join(said), ""]

    def page(self) -> str:
        out = [INTRODUCTION]
        for title, names in GROUPS:
            out += [f"**{title}**", "", "| header | module | does | cycles |", "|---|---|---|---|"]
            for header in names.split():
                out += self.index(header) if header in self.texts else []
            out.append("")
        for _, names in GROUPS:
            for header in (name for name in names.split() if name in self.texts):
                out += [f"## {header}.h", "", *quoted(opening(self.texts[header])), ""]
                for module in self.modules(header):
                    out += self.module(module)
                rest = [d for d in self.declared[header] if not d.is_module and d.summary]
                if rest:
                    out += ["Types and functions:", ""]
                    out += [f"- `{d.name}`: {first_sentence(d.summary)}" for d in rest] + [""]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).rstrip() + "\n"


def quoted(text: str) -> list[str]:
    """A comment as paragraphs; what it sets in columns stays in them."""
    out, block = [], False
    for line in text.splitlines():
        columns = bool(re.match(r"  +\S|\S.*:$", line)) if block else bool(re.match(r"  +\S", line))
        if columns and not block:
            out += ["", "```text"]
        if block and not columns:
            out += ["```", ""]
        block = columns
        out.append(line if columns else escape(line))
    return out + (["```"] if block else [])


def escape(text: str) -> str:
    """Text that Markdown must not read: outside of `code`, brackets, bars and stars at a word."""
    parts = re.split(r"(`[^`\n]*`)", text)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([|\[\]]|\*(?=\S)|(?<=\S)\*)", r"\\\1", parts[i]).replace("<", "&lt;")
    return "".join(parts)


def first_sentence(text: str) -> str:
    return escape(re.split(r"(?<=[^.]\.)\s|\n\n", text, maxsplit=1)[0].strip())


def first_clause(text: str) -> str:
    sentence = first_sentence(text)
    clause = re.split(r"[:;]\s", sentence, maxsplit=1)[0]
    return (clause if clause.count("(") == clause.count(")") else sentence).removesuffix(".")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the project")
    options = parser.parse_args()
    catalogue = Catalogue(options.root)
    problems = catalogue.problems()
    page, text = options.root / PAGE, catalogue.page()
    if not options.check:
        page.write_text(text)
    elif not page.exists() or page.read_text() != text:
        problems.append(f"{PAGE} is not what scripts/kernel_catalogue.py writes: run it")
    if problems:
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
