"""A record of `rwkv bench` as people and programs want it: table, Markdown, JSON, CSV, pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from statistics import median
from typing import Any

from rwkv_cli.bench.compare import kind
from rwkv_cli.render.chart import chart
from rwkv_cli.render.plot import Line
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.tables import Cells, aligned, markdown

Record = Mapping[str, Any]

_NAMES = {
    "first_token": "first token, fresh process",
    "peak_memory": "peak memory, fresh process",
    "state_save": "state save",
    "state_load": "state load",
    "reread": "reading it all again",
}
_LISTS = ("runs", "samples")


def written(record: Record, form: str) -> str:
    """Write a record as "table", "md", "json" or "csv"."""
    return FORMATS[form](record)


def _json(record: Record) -> str:
    return json.dumps(record, indent=1) + "\n"


def _csv(record: Record) -> str:
    """Write a line a measurement; the comparison, if there is one, in its last columns."""
    fields = [key for key in _row_keys(record) if key not in _LISTS]
    compared = record.get("comparison")
    extra = ["old", "ratio", "verdict"] if compared is not None else []
    known = {_identity(row): row for row in compared or ()}
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*fields, *extra])
    for row in record["results"]:
        other = known.get(_identity(row), {})
        table.writerow([*(row[key] for key in fields), *(other.get(key) for key in extra)])
    return text.getvalue()


def _row_keys(record: Record) -> list[str]:
    return list(record["results"][0]) if record["results"] else ["test"]


def _identity(row: Record) -> tuple[Any, ...]:
    keys = ("test", "tokens", "depth", "batch", "dtype", "threads", "engine")
    return tuple(row[key] for key in keys)


def _table(record: Record) -> str:
    return _document(record, aligned, "{}\n")


def _markdown(record: Record) -> str:
    return _document(record, markdown, "- {}\n")


def _document(record: Record, table: Callable[[Cells], str], line: str) -> str:
    """Put tables and remarks together; a table without rows is left out."""
    tables = [_speeds(record), _others(record), _comparison(record)]
    parts = [_title(record) + "\n", *(table(cells) for cells in tables if len(cells) > 1)]
    parts.append("".join(line.format(safe(remark)) for remark in _remarks(record)))
    return "\n".join(parts)


def _title(record: Record) -> str:
    model, machine = record["model"], record["machine"]
    engines = dict.fromkeys(row["engine"] for row in record["results"])
    parts = [
        f"rwkv {record['version']}",
        f"{model['name']}, {model['version']} {model['shape']}",
        ", ".join(engines),
        f"{machine['cpu']}, {machine['cores']} cores",
    ]
    return safe(" · ".join(part for part in parts if part))


def _speeds(record: Record) -> list[list[str]]:
    """List prefills and decodes."""
    rows = [row for row in record["results"] if row["unit"] == "s/token"]
    extra = _varying(record)
    head = ["test", *extra, "ms/token", "min-max", "p95", "tokens/s", "of peak"]
    return [head] + [
        [
            row_name(row),
            *_properties(row, extra),
            figure(1000 * row["median"]),
            f"{figure(1000 * row['min'])}-{figure(1000 * row['max'])}",
            figure(1000 * row["p95"]),
            figure(row["tokens_per_second"]),
            "" if row["share"] is None else f"{row['share']:.0%}",
        ]
        for row in rows
    ]


def _others(record: Record) -> list[list[str]]:
    """List what is measured in seconds or bytes."""
    rows = [row for row in record["results"] if row["unit"] != "s/token"]
    extra = _varying(record)
    return [["besides", *extra, "median", "min-max"]] + [
        [row_name(row), *_properties(row, extra), amount(row, "median"), _range(row)]
        for row in rows
    ]


def _range(row: Record) -> str:
    return f"{amount(row, 'min')} - {amount(row, 'max')}" if row["repeats"] > 1 else ""


def _comparison(record: Record) -> list[list[str]]:
    """List what became of the measurements of an earlier record."""
    rows = record.get("comparison") or []
    extra = _varying(record)
    return [["against the earlier record", *extra, "then", "now", "ratio", ""]] + [
        [
            row_name(row),
            *_properties(row, extra),
            amount(row, "old"),
            amount(row, "new"),
            f"{row['ratio']:.2f}x",
            row["verdict"],
        ]
        for row in rows
    ]


def _varying(record: Record) -> list[str]:
    """Name the properties of engines in which rows differ, which need a column."""
    rows = record["results"]
    named = [key for key in ("dtype", "threads") if len({row[key] for row in rows}) > 1]
    return (["engine"] if len(set(map(kind, rows))) > 1 else []) + named


def _properties(row: Record, names: Sequence[str]) -> list[str]:
    return [kind(row) if name == "engine" else str(row[name]) for name in names]


def _remarks(record: Record) -> list[str]:
    """Say what the tables leave out."""
    size = record["model"]["state_bytes"] / 1e6
    found = [f"a state takes {figure(size)} MB at every position"]
    found += [*_resumes(record), *map(_peaks, record["ceilings"])]
    if record["no_ceilings"]:
        found.append(f"no shares of the machine's peak: {record['no_ceilings']}")
    if not record["complete"]:
        found.append("interrupted: not everything that was asked for is here")
    found += [f"warning: {text}" for text in record["warnings"]]
    return found


def _resumes(record: Record) -> list[str]:
    """Say what a state saves."""
    return [
        f"resuming at {point['depth']:,} takes {duration(point['state_load_s'])}, reading again "
        f"{duration(point['reread_s'])}: {figure(point['ratio'])} times as long ({point['dtype']})"
        for point in record["resume"]
    ]


def _peaks(peaks: Record) -> str:
    kinds = peaks["operations_per_second"].items()
    rates = ", ".join(f"{kind} {value / 1e9:,.0f}" for kind, value in kinds)
    count = peaks["threads"]
    return (
        f"peak with {count} thread{'s' * (count != 1)}: reads "
        f"{peaks['read_bytes_per_second'] / 1e9:.1f} GB/s, computes {rates} Gop/s"
    )


def row_name(row: Record) -> str:
    """Say what a row measured."""
    test: str = row["test"]
    name = _NAMES.get(test, test)
    if test in ("prefill", "decode"):
        name += f" {row['tokens']:,}"
    if row["batch"] > 1:
        name += f" x{row['batch']}"
    return f"{name} at {row['depth']:,}" if row["depth"] else name


def amount(row: Record, key: str) -> str:
    """Write a figure of a row with its unit."""
    value: float = row[key]
    if row["unit"] == "bytes":
        return f"{value / 1e6:,.0f} MB"
    return duration(value)


def duration(seconds: float) -> str:
    """Write seconds: 1.24 s, 85.3 ms."""
    return f"{figure(seconds)} s" if seconds >= 1 else f"{figure(1000 * seconds)} ms"


def figure(value: float) -> str:
    """Write a number with about three digits: 1,240, 85.3, 9.12, 0.431."""
    digits = next((d for bound, d in ((100, 0), (10, 1), (1, 2)) if value >= bound), 3)
    return f"{value:,.{digits}f}"


def decode_groups(record: Record) -> dict[str, list[Record]]:
    """Give the decodes of each engine and batch, by a label, in the order of their depths."""
    found: dict[str, list[Record]] = {}
    for row in record["results"]:
        if row["test"] == "decode":
            batch = f", batch {row['batch']}" if row["batch"] > 1 else ""
            threads = f"{row['threads']} thread{'s' * (row['threads'] != 1)}"
            found.setdefault(f"{row['engine']}, {threads}{batch}", []).append(row)
    return {label: sorted(rows, key=lambda row: row["depth"]) for label, rows in found.items()}


def plot_lines(record: Record) -> list[Line]:
    """Give what a picture of time against position shows."""
    lines = []
    for label, rows in decode_groups(record).items():
        parts = []
        for row in rows:
            positions = [row["depth"] + i for run in row["samples"] for i in range(len(run))]
            parts.append((positions, [value for run in row["samples"] for value in run]))
        lines.append(Line(label, parts))
    return lines


def terminal_chart(record: Record, width: int, *, unicode: bool) -> str:
    """Draw the first engine's milliseconds a token by position; empty without a decode."""
    for label, rows in decode_groups(record).items():
        series = [(f"at {row['depth']:,}", _by_step(row["samples"])) for row in rows]
        drawn = chart(series, width=width, unicode=unicode)
        return f"ms/token by position: {safe(label)}\n{drawn}"
    return ""


def _by_step(samples: Sequence[Sequence[float]]) -> list[float]:
    """Give the milliseconds of each step, the median of its repeats."""
    return [1000 * median(step) for step in zip(*samples, strict=True)]


FORMATS: dict[str, Callable[[Record], str]] = {
    "table": _table,
    "md": _markdown,
    "json": _json,
    "csv": _csv,
}
