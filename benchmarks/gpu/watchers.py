"""NVIDIA's own tools: the sanitizer, and the profiler that reads the card's counters."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gpu.record import Deadline, Unit, Values
from gpu.tools import Done, found, run

CHILD = Path(__file__).with_name("child.py")
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
# In the order of what would tell the most: all types of weights, then the other versions.
CHECKED = (("v7", "int4"), ("v6", "fp16"), ("v4", "fp16"), ("v5.2", "fp16"))
PROFILED = ("dot_1", "value_1", "head7_64", "scan7_64")
# How a report of the sanitizer begins.
_REPORT = re.compile(
    r"Invalid|Uninit|Race|Error: |Warning: |Barrier|Diverg|Potential|Program hit|Misaligned"
)
_WHOLE = 700  # characters of the first report of a kernel of ours
METRICS = (
    "gpu__time_duration.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes_read.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "launch__registers_per_thread",
    "launch__occupancy_limit_shared_mem",
)


# --- the sanitizer --------------------------------------------------------------------------------


def sanitizer_units(kernels: Sequence[str], deadline: Deadline) -> list[Unit]:
    """Run the self-test under each of the sanitizer's tools."""
    program = found("compute-sanitizer")
    if program is None:
        return [Unit("compute-sanitizer", lambda: _missing("compute-sanitizer"))]
    command = [program, "--print-limit", "40", "--tool"]

    def sanitized(tool: str, version: str, dtype: str) -> Callable[[], Values]:
        child = [tool, sys.executable, str(CHILD), "judge", version, dtype]
        return lambda: _sanitized([*command, *child], kernels, deadline)

    return [
        Unit(f"{tool}, {version} {dtype}", sanitized(tool, version, dtype), 10)
        for version, dtype in CHECKED
        for tool in SANITIZERS
    ]


def _missing(name: str) -> Values:
    """Leave a program out, saying so."""
    yield "left out", f"{name} is neither on the path nor in a toolkit"


def _sanitized(command: Sequence[str], kernels: Sequence[str], deadline: Deadline) -> Values:
    # Each tensor is an allocation of its own, so that one that is left is noticed.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    yield from findings(run(command, min(90.0, deadline.left()), **alone), kernels)


def findings(done: Done, kernels: Sequence[str]) -> Values:
    """Read what the sanitizer said: of our kernels, and of all others."""
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", done.output)
    yield "summary", summary[-1] if summary else "none"
    yield "ended", "by time" if done.status is None else f"with {done.status}"
    judged = re.findall(r"^judged: .*", done.output, re.MULTILINE)
    yield "self-test", judged[-1] if judged else f"did not end: {done.output.strip()[-300:]}"
    named = re.compile(r"\b(?:" + "|".join(map(re.escape, kernels)) + r")\b")
    ours: dict[str, int] = {}
    others, whole = 0, ""
    for report in re.split(r"^=========\s*$", done.output, flags=re.MULTILINE):
        lines = [line.removeprefix("=========").strip() for line in report.splitlines()]
        first = next((line for line in lines if _REPORT.match(line)), None)
        if first is None:
            continue
        name = named.search(report)
        if name is None:
            others += 1
        else:
            key = f"{name[0]}: {first[:160]}"
            ours[key] = ours.get(key, 0) + 1
            whole = whole or " / ".join(lines[lines.index(first) :])[:_WHOLE]
    yield "reports of our kernels", ours
    yield "other reports", others
    if whole:  # with the address, and the allocation nearest to it
        yield "the first", whole


# --- the profiler ---------------------------------------------------------------------------------


def profiler_units(deadline: Deadline) -> list[Unit]:
    """Read the card's counters for the kernels that matter most."""
    return [Unit("counters (ncu)", lambda: _counted(deadline), 15)]


def _counted(deadline: Deadline) -> Values:
    program = found("ncu")
    if program is None:
        yield from _missing("ncu")
        return
    names = "regex:^(" + "|".join(PROFILED) + ")$"
    command = [program, "--clock-control", "none", "--csv", "--kernel-name", names]
    command += ["--launch-count", "60", "--metrics", ",".join(METRICS), sys.executable, CHILD]
    done = run([*command, "passes", "v7-1.5b", "fp16"], min(90.0, deadline.left()))
    rows = list(counters(done.output))
    if not rows:
        raise RuntimeError(f"ncu gave no counters: {done.output.strip()[-400:]}")
    yield from rows


def counters(output: str) -> Iterator[tuple[str, Any]]:
    """Read ncu's table: a kernel and its grid to the medians of its launches."""
    lines = output.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if first is None:
        return
    seen: dict[str, dict[str, list[float]]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines[first:]))):
        name, metric = row.get("Kernel Name"), row.get("Metric Name")
        if not name or not metric:
            continue
        key = f"{name.partition('(')[0]} {row.get('Grid Size', '')}"
        try:
            value = float((row.get("Metric Value") or "").replace(",", ""))
        except ValueError:
            continue
        unit = row.get("Metric Unit") or ""
        seen.setdefault(key, {}).setdefault(f"{metric} {unit}".strip(), []).append(value)
    for key, metrics in seen.items():
        yield key, {metric: sorted(values)[len(values) // 2] for metric, values in metrics.items()}
