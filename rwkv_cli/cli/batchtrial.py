"""`rwkv generate -i --dry-run`: what would be asked, and how long it would take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rwkv_cli.batch.row import Request, RowError
from rwkv_cli.batch.running import Runner
from rwkv_cli.cli.batchplan import Plan
from rwkv_cli.render.progress import clock, counted
from rwkv_cli.render.streams import Sink

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model

_SHOWN = 3  # rows
_SECONDS = 3.0  # of measuring


def try_out(plan: Plan, model: Model, slots: int, sink: Sink) -> None:
    """Show the first prompts, and measure for a moment how fast rows are answered.

    Args:
        plan: What rows are asked with.
        model: Who would answer.
        slots: How many at once.
        sink: Where this is shown.
    """
    asking = plan.asking(plan.seed())
    asked = [asking(row) for row in plan.first_rows()]
    for index, one in enumerate(asked[:_SHOWN]):
        sink.write(_shown(index, one, model))
    requests = [one for one in asked if isinstance(one, Request)]
    if not requests:
        sink.write(b"no row asks anything that could be answered\n")
        return
    rate = _measured(Runner(model, slots=slots, open_state=plan.open_state), requests)
    sink.write(_estimate(plan, model, requests, rate).encode())


def _shown(index: int, one: Request | RowError, model: Model) -> bytes:
    if isinstance(one, RowError):
        return f"--- row {index}: {one.message}\n".encode("utf-8", "replace")
    count = counted(len(model.tokenizer.encode(one.prompt)), "token")
    head = f"--- row {index}: {count}, an answer of at most {one.max_tokens:,}\n"
    return head.encode() + one.prompt + b"\n"


def _measured(runner: Runner, requests: list[Request]) -> float:
    """Answer for a moment; tokens a second, read and generated alike."""
    began, done = time.monotonic(), 0

    def tick(read: int, generated: int) -> None:
        nonlocal done
        done = read + generated
        if time.monotonic() - began > _SECONDS:
            runner.interrupt()

    for _ in runner.run(requests, tick):
        pass
    return done / (time.monotonic() - began)


def _estimate(plan: Plan, model: Model, requests: list[Request], rate: float) -> str:
    """Say how long all rows take at most, as far as the first ones are like the others."""
    some = requests[:100]
    prompts = sum(len(model.tokenizer.encode(one.prompt)) for one in some) / len(some)
    answers = sum(one.max_tokens * one.samples for one in some) / len(some)
    speed = f"{rate:,.0f} tokens/s, measured for a moment"
    rows = plan.rows
    if rows is None:
        return f"--- {rate / (prompts + answers):,.2g} rows/s at least ({speed})\n"
    longest = clock(rows * (prompts + answers) / max(rate, 1e-9))
    return f"--- {counted(rows, 'row')}: {longest} at most ({speed})\n"
