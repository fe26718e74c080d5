"""`rwkv generate -i --dry-run`: what would be asked, and how long it would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from rwkv_cli.batch.preview import previewed
from rwkv_cli.batch.row import Request
from rwkv_cli.batch.running import Prefix
from rwkv_cli.cli.answering import Answering, Here
from rwkv_cli.cli.batchplan import A_FEW, LOOK, Plan
from rwkv_cli.render.progress import clock, counted
from rwkv_cli.render.streams import Sink

Encode = Callable[[bytes], Sequence[int]]

_SECONDS = 1.5  # of measuring, for reading and for writing each
_COUNTED = 100  # prompts whose tokens are counted
_TAIL = 32  # bytes of prompts that are left while writing is measured


@dataclass(frozen=True, slots=True)
class _Speed:
    """Tokens a second of all rows at work together."""

    reading: float
    writing: float


def try_out(plan: Plan, by: Answering, sink: Sink) -> None:
    """Show the first prompts, and measure for a moment how fast rows are answered; a cluster is not
    bothered for that.

    Args:
        plan: What rows are asked with.
        by: Who would answer.
        sink: Where this is shown.
    """
    asking, encode = plan.asking(plan.seed()), by.model.tokenizer.encode
    asked = []
    for number, row in enumerate(plan.samples()):
        asked.append(asking(row))
        if number < A_FEW:
            lines = previewed(row.index, asked[-1], encode)
            sink.write("".join(f"{line}\n" for line in lines).encode())
    requests = [one for one in asked if isinstance(one, Request)]
    if not requests:
        sink.write(b"no row asks anything that could be answered\n")
        return
    prefix = plan.shared(requests)
    if prefix.tokens:
        shared = counted(len(prefix.tokens), "token")
        sink.write(f"shared prefix: {shared}, to be read once\n".encode())
    if isinstance(by, Here):
        sink.write(_estimate(plan, encode, requests, prefix, _measured(plan, by, requests)))


def _measured(plan: Plan, by: Here, requests: list[Request]) -> _Speed:
    """Measure reading and writing one after the other: a run begins with much reading and ends with
    writing alone, so that its first seconds tell neither.
    """
    many = list(islice(cycle(requests), LOOK))
    read, _ = _rates(plan, by, [replace(one, max_tokens=1, samples=1) for one in many])
    _, written = _rates(plan, by, [replace(one, prompt=one.prompt[-_TAIL:]) for one in many])
    return _Speed(read, written)


def _rates(plan: Plan, by: Here, requests: list[Request]) -> tuple[float, float]:
    """Answer for a moment; tokens a second, read and written."""
    by.start(plan, Prefix())
    runner, began = by.runner, time.monotonic()
    tokens = (0, 0)

    def tick(read: int, written: int) -> None:
        nonlocal tokens
        tokens = read, written
        if time.monotonic() - began > _SECONDS:
            runner.interrupt()

    for _ in runner.run(requests, tick):
        pass
    seconds = time.monotonic() - began
    return tokens[0] / seconds, tokens[1] / seconds


def _estimate(
    plan: Plan, encode: Encode, requests: list[Request], prefix: Prefix, speed: _Speed
) -> bytes:
    """Say how long all rows take at most, as far as the first ones are like the others."""
    some = requests[:_COUNTED]
    to_read = sum(_unread(some, encode, prefix)) / len(some)
    to_write = sum(one.max_tokens * one.samples for one in some) / len(some)
    seconds = to_read / max(speed.reading, 1e-9) + to_write / max(speed.writing, 1e-9)
    measured = f"measured: {speed.reading:,.0f} tokens/s read, {speed.writing:,.0f} written"
    if plan.rows is None:
        return f"{1 / max(seconds, 1e-9):,.2g} rows/s at least ({measured})\n".encode()
    whole = plan.rows * seconds
    longest = clock(whole) if whole >= 1 else "a second"
    return f"{counted(plan.rows, 'row')}: {longest} at most ({measured})\n".encode()


def _unread(requests: list[Request], encode: Encode, prefix: Prefix) -> Iterator[int]:
    """Count the tokens of prompts that are not read with what they share."""
    shared = len(prefix.tokens)
    for one in requests:
        ids = encode(one.prompt)
        begins = shared and one.state == prefix.state and ids[:shared] == prefix.tokens
        yield len(ids) - (shared if begins else 0)
