"""Reads what Vitis reports of a build into rows: a part of build-bitstream. A row is a module or a
kernel at one stage: csynth (HLS), or link (placed and routed), or plan (the model's estimate)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from pathlib import Path

KINDS = ("dsp", "bram18", "uram", "lut")
HLS_KINDS = {"dsp": "DSP", "bram18": "BRAM_18K", "uram": "URAM", "lut": "LUT"}
LINK_KINDS = {"dsp": "DSP", "bram18": "BRAM", "uram": "URAM", "lut": "LUT"}


def csynth(path: Path) -> dict:
    """Resources, and the worst latency where HLS knows one, of a csynth.xml."""
    root = xml.parse(path).getroot()
    used = root.find("AreaEstimates/Resources")
    row = {kind: int(float(used.findtext(tag, "0"))) for kind, tag in HLS_KINDS.items()}
    latency = root.findtext("PerformanceEstimates/SummaryOfOverallLatency/Worst-caseLatency", "")
    if latency.isdigit():
        row["cycles"] = int(latency)
    period = root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
    if period:
        row["period_ns"] = float(period)
    return row


def utilization(text: str) -> dict[str, dict]:
    """Rows of a kernel_util report by name. Its block RAMs are of 36 kbit."""
    rows, columns = {}, []
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "Name":
            columns = cells
        elif columns:
            found = dict(zip(columns, cells))
            row = {}
            for kind, column in LINK_KINDS.items():
                number = re.match(r"[\d.]+", found.get(column, ""))
                if number:
                    row[kind] = round(float(number[0]) * (2 if kind == "bram18" else 1))
            rows[cells[0]] = row
    return rows


def worst_slack(text: str) -> float | None:
    """WNS in ns of a timing summary."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if line.split()[:1] == ["WNS(ns)"]:
            for values in lines[i + 1:i + 4]:
                number = re.match(r"\s*(-?\d+\.\d+)", values)
                if number:
                    return float(number[1])
    return None


def newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.rglob(pattern), key=lambda p: p.stat().st_mtime, default=None)


def collect(out: Path, accelerator, modules: list[str], plan: dict | None) -> list[dict]:
    rows = []
    for module in modules:
        path = out / f"{module}.csynth/project/solution/syn/report/csynth.xml"
        if path.exists():
            rows.append({"name": module, "stage": "csynth", **csynth(path)})
    util = newest(out / "link", "*kernel_util_routed.rpt")
    linked = utilization(util.read_text(errors="replace")) if util else {}
    timing = newest(out / "link", "*timing_summary_routed.rpt")
    slack = worst_slack(timing.read_text(errors="replace")) if timing else None
    for kernel in accelerator.kernels:
        folder = out / f"{kernel.name}.compile"
        path = newest(folder, f"{kernel.name}_csynth.xml") or newest(folder, "csynth.xml")
        if path:
            rows.append({"name": kernel.name, "stage": "csynth", **csynth(path)})
        if kernel.compute_unit in linked:
            rows.append({"name": kernel.name, "stage": "link", **linked[kernel.compute_unit],
                         **({"slack_ns": slack} if slack is not None else {})})
    return rows + (estimates(plan) if plan else [])


def estimates(plan: dict) -> list[dict]:
    return [{"name": kernel["kernel"], "stage": "plan",
             **{kind: round(kernel[kind]) for kind in KINDS if kind in kernel}}
            for kernel in plan.get("resources", {}).get("kernels", [])]


def table(rows: list[dict]) -> str:
    """One line a module or kernel and stage; what the model estimates stands beside."""
    planned = {row["name"]: row for row in rows if row["stage"] == "plan"}
    extra = ("cycles", "period_ns", "slack_ns")
    head = ["name", "stage"]
    for kind in KINDS:
        head += [kind, "plan"] if planned else [kind]
    lines = [head + list(extra)]
    for row in rows:
        if row["stage"] == "plan":
            continue
        line = [row["name"], row["stage"]]
        for kind in KINDS:
            line.append(str(row.get(kind, "-")))
            if planned:
                line.append(str(planned.get(row["name"], {}).get(kind, "-")))
        lines.append(line + [str(row.get(key, "-")) for key in extra])
    if len(lines) == 1:
        return "no reports yet\n"
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "".join("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in
                             enumerate(zip(line, widths))).rstrip() + "\n" for line in lines)
