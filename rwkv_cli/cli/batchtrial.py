"""`rwkv generate -i --dry-run`: what would be asked, and how long it would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rwkv_cli.batch.preview import previewed
from rwkv_cli.batch.row import Request
from rwkv_cli.batch.running import NO_PREFIX, Runner
from rwkv_cli.cli.answering import Answering, Here
from rwkv_cli.cli.batchplan import Plan
from rwkv_cli.render.progress import clock, counted
from rwkv_cli.render.streams import Sink

Encode = Callable[[bytes], Sequence[int]]

_SHOWN = 3  # rows
_SECONDS = 3.0  # of measuring


def try_out(plan: Plan, by: Answering, sink: Sink) -> None:
    """Show the first prompts, and measure for a moment how fast rows are answered; a cluster is not
    bothered for that.

    Args:
        plan: What rows are asked with.
        by: Who would answer.
        sink: Where this is shown.
    """
    asking, encode = plan.asking(plan.seed()), by.model.tokenizer.encode
    asked = [asking(row) for row in plan.first_rows()]
    for index, one in enumerate(asked[:_SHOWN]):
        sink.write("".join(f"{line}\n" for line in previewed(index, one, encode)).encode())
    requests = [one for one in asked if isinstance(one, Request)]
    if not requests:
        sink.write(b"no row asks anything that could be answered\n")
    elif isinstance(by, Here):
        by.start(plan, NO_PREFIX)
        sink.write(_estimate(plan, encode, requests, _measured(by.runner, requests)).encode())


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


def _estimate(plan: Plan, encode: Encode, requests: list[Request], rate: float) -> str:
    """Say how long all rows take at most, as far as the first ones are like the others."""
    some = requests[:100]
    prompts = sum(len(encode(one.prompt)) for one in some) / len(some)
    answers = sum(one.max_tokens * one.samples for one in some) / len(some)
    speed = f"{rate:,.0f} tokens/s, measured for a moment"
    rows = plan.rows
    if rows is None:
        return f"{rate / (prompts + answers):,.2g} rows/s at least ({speed})\n"
    longest = clock(rows * (prompts + answers) / max(rate, 1e-9))
    return f"{counted(rows, 'row')}: {longest} at most ({speed})\n"
