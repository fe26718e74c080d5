"""Rows and answers that follow from their numbers, and the output that must come of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path

from rwkv_cli.batch.manifest import InputFacts, Manifest
from rwkv_cli.batch.output import Output
from rwkv_cli.batch.row import Answer, Row, RowError, Sample
from rwkv_cli.batch.writing import line_maker


def facts(rows: int, **changes: object) -> Manifest:
    """What a run of so many rows is made with."""
    given: dict[str, object] = {
        "model": "a" * 64,
        "numerics": "native float32",
        "input": InputFacts("jsonl", rows, hashlib.sha256(b"%d" % rows).hexdigest(), name="in"),
        "parameters": {"temperature": 0.7, "stop": ["\n"]},
        **changes,
    }
    return Manifest(**given)  # type: ignore[arg-type]


def stream_facts(**changes: object) -> Manifest:
    return facts(0, input=InputFacts("jsonl", 0, "0" * 64, stream=True), **changes)


def stream_digest(rows: int) -> str:
    """The digest of the first rows of the one stream there is here."""
    return hashlib.sha256(b"".join(b"%d\n" % index for index in range(rows))).hexdigest()


def fails(index: int) -> bool:
    return index % 7 == 3


def line(index: int, layout: str = "jsonl", *, size: int = 20) -> bytes:
    """Make the line of a row; its length differs from row to row."""
    row = Row(index, {"prompt": f"row {index}", "custom_id": f'c"{index}'})
    error = RowError("bad_value", "no such temperature") if fails(index) else None
    text = b"x" * (index * 37 % size) + b" \xe2\x82\xac"
    samples = () if error else (Sample(text, "end", index % 5),)
    answer = Answer(index, index * 11, 3, samples, error)
    return line_maker(layout, "demo")(row, answer)


def add(output: Output, indexes: Iterable[int], layout: str = "jsonl", **how: int) -> None:
    for index in indexes:
        output.add(index, line(index, layout, **how), failed=fails(index))


def expected(rows: int, *, failed: bool | None = None, layout: str = "jsonl") -> bytes:
    """The file in order: all rows, or only those that failed, or did not."""
    chosen = (i for i in range(rows) if failed is None or fails(i) == failed)
    return b"".join(line(index, layout) for index in chosen)


ROWS = 40


def mixed(rows: int = ROWS, seed: int = 1) -> list[int]:
    """All rows, in no order."""
    order = list(range(rows))
    random.Random(seed).shuffle(order)
    return order


def finish(path: Path, rows: int = ROWS, **how: object) -> None:
    """Make a whole output."""
    with Output(path, facts(rows), **how) as output:  # type: ignore[arg-type]
        add(output, mixed(rows))
        output.finish()
