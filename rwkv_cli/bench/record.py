"""A run as a JSON object: what was measured, with what, on what, and when."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.arch.spec import state_shapes
from rwkv_cli.bench.ceilings import Ceilings
from rwkv_cli.bench.machine import Busy, describe_machine
from rwkv_cli.bench.rows import Row
from rwkv_cli.errors import RefusedError
from rwkv_cli.files import read_regular
from rwkv_cli.version import __version__

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model

FORMAT = "rwkv bench 1"
_LIMIT = 256 << 20  # bytes of a record
_SPREAD = 0.15
_NUMBERS = ("tokens", "depth", "batch", "threads", "repeats", "median", "min", "max")


def describe_model(model: Model) -> dict[str, Any]:
    """Tell what a model is."""
    shapes = state_shapes(model.arch, model.dims)
    return {
        "name": model.name,
        "version": model.arch.name,
        "shape": f"L{model.dims.layers} D{model.dims.width} V{model.dims.vocab}",
        "file_bytes": model.path.stat().st_size if model.path.is_file() else None,
        "state_bytes": sum(4 * prod(shape) for shape in shapes.values()),
    }


def make_record(
    command: str,
    model: Mapping[str, Any],
    rows: Sequence[Row],
    ceilings: Sequence[Ceilings] | str,
    busy: Busy,
    *,
    complete: bool,
) -> dict[str, Any]:
    """Put a run together.

    Args:
        command: The command line that repeats it.
        model: As `describe_model` says.
        rows: What was measured.
        ceilings: What the machine gives, for each number of threads; or why that is not known.
        busy: What other programs did.
        complete: Whether everything was measured that was asked for.
    """
    known = not isinstance(ceilings, str)
    return {
        "format": FORMAT,
        "version": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "complete": complete,
        "machine": describe_machine(),
        "busy": busy.to_json(),
        "model": dict(model),
        "ceilings": [c.to_json() for c in ceilings if isinstance(c, Ceilings)],
        "no_ceilings": None if known else ceilings,
        "warnings": _warnings(rows, ceilings, busy),
        "resume": _resumes(rows),
        "results": [row.to_json() for row in rows],
    }


def _resumes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Hold loading a state against reading its text again, at each depth that was read."""
    loads = {(row.engine, row.depth): row.median for row in rows if row.test == "state_load"}
    return [
        {
            "depth": row.depth,
            "dtype": row.engine.dtype,
            "threads": row.engine.threads,
            "state_load_s": load,
            "reread_s": row.median,
            "ratio": row.median / load,
        }
        for row in rows
        if row.test == "reread" and (load := loads.get((row.engine, row.depth)))
    ]


def _warnings(rows: Sequence[Row], ceilings: Sequence[Ceilings] | str, busy: Busy) -> list[str]:
    """Say what makes the figures doubtful."""
    unsteady = [c.warning() for c in ceilings if isinstance(c, Ceilings)]
    found = [text for text in (busy.warning(), *unsteady) if text]
    timed = [row for row in rows if row.test in ("prefill", "decode")]
    wide = [row.test for row in timed if len(row.runs) > 1 and _spread(row) > _SPREAD]
    if wide:
        names = ", ".join(dict.fromkeys(wide))
        found.append(f"repeats differ by more than {_SPREAD:.0%}: {names}")
    return found


def _spread(row: Row) -> float:
    return (max(row.runs) - min(row.runs)) / row.median


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of an earlier run.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is no record.
    """
    hint = "rwkv bench --json -o FILE writes one"
    try:
        record = json.loads(read_regular(path, _LIMIT))
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path}: is not JSON", hint=hint) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise RefusedError(f"{path}: is no record of rwkv bench", hint=hint)
    if not _is_whole(record):
        raise RefusedError(f"{path}: is damaged: it lacks what a record has", hint=hint)
    return record


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Check what comparing relies on."""
    parts = {"machine": ("cpu", "system"), "model": ("name", "shape")}
    if any(
        not isinstance(record.get(part), dict) or not isinstance(record[part].get(key), str)
        for part, keys in parts.items()
        for key in keys
    ):
        return False
    rows = record.get("results")
    return isinstance(rows, list) and all(isinstance(r, dict) and _is_row(r) for r in rows)


def _is_row(row: Mapping[str, Any]) -> bool:
    texts = all(isinstance(row.get(key), str) for key in ("test", "dtype", "engine", "unit"))
    numbers = all(type(row.get(key)) in (int, float) for key in _NUMBERS)
    return texts and numbers and row["median"] > 0
