"""The record of a run as tables of Markdown, what is wanted most last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpu.targets import DECODE, PEER, PREFILL, SHARES

Data = dict[str, dict[str, Any]]


def markdown(data: Data) -> str:
    """Write everything that was found."""
    lines = ["# On a CUDA card", ""]
    for part, writer in _WRITERS.items():
        if part not in data:
            continue
        record = data[part]
        seconds = sum(record["seconds"].values())
        lines += [f"## {part} ({seconds:.0f} s)", "", *writer(record["values"]), ""]
        for title in ("failed", "left_out"):
            lines += [f"- {title.replace('_', ' ')}: {k}: {v}" for k, v in record[title].items()]
        if record["begun"]:
            lines.append(f"- ended in the middle of {record['begun']}")
        lines.append("")
    return "\n".join([*lines, "## targets", "", *targets(data), ""])


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Write a table."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for row in rows:
        yield "| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |"


def _facts(values: Data) -> Iterator[str]:
    for unit in ("card", "ceilings", "compiling", "launches"):
        yield from (f"- {key}: {value}" for key, value in values.get(unit, {}).items())
    rows = values.get("registers", {})
    spilled = [name for name, row in rows.items() if row[1]]
    if rows:
        yield f"- {len(rows)} kernels; with local memory: {', '.join(spilled) or 'none'}"
        yield ""
        heads = ("kernel", "registers", "local bytes", "threads", "blocks of a processor")
        yield from table(heads, ((name, *row) for name, row in rows.items()))


def _kernels(values: Data) -> Iterator[str]:
    heads = ("tests", "passed", "failed", "skipped", "seconds")
    yield from table(heads, ((n, *(v.get(h) for h in heads[1:])) for n, v in values.items()))
    for name, found in values.items():
        marked = {k: v for k, v in found.items() if ": " in k}
        yield from (f"- {name}: {key}: {value}" for key, value in marked.items())


def _sanitize(values: Data) -> Iterator[str]:
    heads = ("summary", "self-test", "reports of our kernels", "other reports", "ended", "left out")
    yield from table(("run", *heads), ((n, *(v.get(h) for h in heads)) for n, v in values.items()))


def _equality(values: Data) -> Iterator[str]:
    names = {name: None for found in values.values() for name in found}
    rows = ([unit, *(_said(found.get(name)) for name in names)] for unit, found in values.items())
    yield from table(("model", *names), rows)


def _said(value: Any) -> str | None:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one}" for key, one in value.items())
    return None if value is None else str(value)


def _speed(values: Data) -> Iterator[str]:
    heads = ("tok/s", "engine tok/s", "us", "floor MB", "live share", "share of the floor",
             "of the target", "greedy tok/s", "sampled tok/s", "same bits", "kernels")  # fmt: skip
    prefill = ("tok/s", "ms", "chunk ms", "share of the floor", "of the target")
    for title, columns in (("decode", heads), ("prefill", prefill)):
        rows = [
            (unit, name, *(found.get(head) for head in columns), found.get("failed"))
            for unit, measures in values.items()
            for name, found in measures.items()
            if name.startswith(title)
        ]
        yield from table(("model", "what", *columns, "failed"), rows)
        yield ""


def _profile(values: Data) -> Iterator[str]:
    heads = ("count", "us", "MB", "GB/s", "TFLOP/s", "registers", "local", "shared",
             "blocks of a processor", "from the cache")  # fmt: skip
    for unit, found in values.items():
        yield f"{unit}:"
        yield ""
        if not unit.startswith("counters"):
            kinds = {name: one for name, one in found.items() if isinstance(one, dict)}
            rows = ((name, *(one.get(head) for head in heads)) for name, one in kinds.items())
            yield from table(("kernel", *heads), rows)
        yield ""
        rest = {n: one for n, one in found.items() if not isinstance(one, dict)}
        rest |= found if unit.startswith("counters") else {}
        yield from (f"- {name}: {_said(one)}" for name, one in rest.items())
        yield ""


def _batches(values: Data) -> Iterator[str]:
    heads = {key: None for of in values.values() for one in of.values() for key in one}
    rows = (
        (unit, name, *(one.get(head) for head in heads))
        for unit, found in values.items()
        for name, one in found.items()
    )
    yield from table(("model", "what", *heads), rows)


def _plain(values: Data) -> Iterator[str]:
    for unit, found in values.items():
        yield f"- {unit}: {_said(found)}"


_WRITERS = {
    "facts": _facts,
    "kernels": _kernels,
    "sanitize": _sanitize,
    "equality": _equality,
    "profile": _profile,
    "peer": _plain,
    "batches": _batches,
    "speed": _speed,
}


# --- targets --------------------------------------------------------------------------------------


def targets(data: Data) -> Iterator[str]:
    """Compare with what was expected; the card of most targets is an H200."""
    yield from table(("what", "measured", "wanted", "reached"), _compared(data))


def _compared(data: Data) -> Iterator[Sequence[Any]]:
    speed = data.get("speed", {}).get("values", {})
    for (name, dtype, batch), wanted in DECODE.items():
        rate = speed.get(f"{name} {dtype}", {}).get(f"decode {batch}", {}).get("tok/s")
        yield _row(f"{name} {dtype}, batch {batch}, tok/s", rate, wanted)
    for (name, dtype), wanted in PREFILL.items():
        rates = [speed.get(f"{name} {dtype}", {}).get(f"prefill {n}", {}) for n in (1024, 4096)]
        best = max((rate.get("tok/s", 0) for rate in rates), default=0)
        yield _row(f"{name} {dtype}, prefill, tok/s", best or None, wanted)
    for name, wanted in SHARES.items():
        share = speed.get(f"{name} fp16", {}).get("decode 1", {}).get("share of the floor")
        yield _row(f"{name} fp16, share of the floor", share, wanted)
    for name, found in data.get("peer", {}).get("values", {}).items():
        theirs = found.get("decode tok/s")
        drawn = speed.get(f"{name} fp16", {}).get("decode 1, drawn on the card", {})
        ours = drawn.get("greedy tok/s")
        ratio = round(ours / theirs, 2) if ours and theirs else None
        yield _row(f"{name} fp16, times the package rwkv", ratio, PEER)


def _row(what: str, found: float | None, wanted: float) -> Sequence[Any]:
    if found is None:
        return what, None, wanted, "not measured"
    return what, found, wanted, "yes" if found >= wanted else "no"
