"""How a model would run here, for `rwkv info --plan`: what lies where, and what a token takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rwkv_cli.engine.estimate import Plan
from rwkv_cli.render.progress import speed
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.tables import aligned
from rwkv_cli.sizes import amount

_HEAD = ("part", "device", "precision", "weights", "streamed", "state")


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Give a plan as plain data, sizes in bytes."""
    rows = [
        {
            "what": row.what, "device": row.device, "dtype": row.dtype, "layers": row.layers,
            "resident_bytes": row.resident, "streamed_bytes": row.streamed,
            "state_bytes": row.state,
        }
        for row in plan.rows
    ]  # fmt: skip
    return {
        "engine": plan.engine,
        "strategy": plan.strategy_text,
        "fits": plan.fits,
        "why": plan.why or None,
        "seconds_per_token": plan.seconds_per_token,
        "total_bytes": plan.total,
        "peak_bytes": plan.peaks,
        "free_bytes": plan.free,
        "rows": rows,
    }


def plan_text(plan: Plan) -> str:
    """Write a plan as a table, with a line on each device and one on the speed."""
    cells: list[Sequence[str]] = [_HEAD]
    for row in plan.rows:
        sizes = (amount(size) if size else "" for size in (row.resident, row.streamed, row.state))
        cells.append((row.what, row.device, row.dtype, *sizes))
    if not any(row.streamed for row in plan.rows):
        cells = [[*row[:4], *row[5:]] for row in cells]
    lines = [f"engine       {plan.engine}, as --strategy '{plan.strategy_text}' asks for"]
    for device, peak in plan.peaks.items():
        known = device in plan.free
        free = f" of {amount(plan.free[device])} free" if known else ", its room is not known"
        lines.append(f"{device:<12} takes {amount(peak)}{free}")
    if plan.seconds_per_token:
        lines.append(f"speed        {speed(1, plan.seconds_per_token)}, predicted")
    why = f": {plan.why}" if plan.why else ""
    unknown = [device for device in plan.peaks if device not in plan.free]
    fits = f"yes, if {' and '.join(unknown)} can be used here" if unknown else "yes"
    lines.append(f"fits         {fits if plan.fits else 'no'}{why}")
    return aligned(cells) + "".join(f"{safe(line)}\n" for line in lines)


def _short(number: float) -> str:
    """Write a number with three digits that count, and never with an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
