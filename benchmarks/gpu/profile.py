"""Where the time of a pass goes: each kind of kernel by itself, over the weights of all layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gpu.cards import Cards
from gpu.models import SHAPES, random_weights
from gpu.passes import Fed, copied
from gpu.record import Unit, Values
from gpu.steps import Step, recorded
from rwkv_cli.engine.cuda.device import overlap_pays
from rwkv_cli.engine.cuda.engine import CudaEngine

# Model, precision, sequences, tokens.
PASSES = (
    ("v7-1.5b", "fp16", 1, 1),
    ("v7-1.5b", "fp16", 1, 1024),
    ("v7-7.2b", "fp16", 1, 1),
    ("v7-1.5b", "int8", 1, 1),
    ("v7-1.5b", "int4", 1, 1),
    ("v7-0.1b", "fp16", 1, 1),
    ("v7-1.5b", "fp16", 8, 1),
    ("v7-1.5b", "fp16", 64, 1),
    ("v7-7.2b", "fp16", 1, 1024),
    ("v6-1.6b", "fp16", 1, 1),
    ("v4-1.5b", "fp16", 1, 1),
)

_CACHED = 128e6  # bytes: what is read again and again, and is not several times the cache, may stay


def units(cards: Cards) -> list[Unit]:
    """List the part's units."""
    return [
        Unit(f"{name} {dtype}, {sequences} x {tokens}", _bound(cards, (name, dtype), *size), 6)
        for name, dtype, *size in PASSES
        for sequences, tokens in [size]
    ]


def _bound(
    cards: Cards, model: tuple[str, str], sequences: int, tokens: int
) -> Callable[[], Values]:
    return lambda: profiled(cards, model, sequences, tokens)


def profiled(
    cards: Cards, model: tuple[str, str], sequences: int, tokens: int, layers: int | None = None
) -> Values:
    """Time the launches of a pass, those of one kind from all layers together: each finds other
    weights than the one before it, as in the pass.

    Args:
        cards: The card.
        model: A name of `SHAPES`, and a precision.
        sequences: Side by side.
        tokens: Of each.
        layers: Other than the model has.
    """
    name, dtype = model
    shape = SHAPES[name]
    if layers:
        shape = replace(shape, layers=layers)
    device = cards.open(dtype, programmatic=overlap_pays(shape.width, dtype))
    engine = CudaEngine(device, random_weights(shape, dtype, cards.place))
    with torch.inference_mode():
        states = [copied(engine, engine.zero_state()) for _ in range(sequences)]
        feed = np.random.default_rng(3).integers(1, shape.vocab, (sequences, tokens)).tolist()
        fed = Fed(engine, states, feed)
        fed.run()
        steps = recorded(fed.program)
        whole = cards.time(fed.run)
        yield "whole pass, us", round(whole * 1e6, 1)
        total = 0.0
        for label, group in grouped(steps).items():
            found = timed(cards, engine, group)
            total += found["us"] * len(group)
            yield label, found
        yield "all kernels one by one, us", round(total, 1)


def grouped(steps: list[Step]) -> dict[str, list[Step]]:
    """Put launches together that differ in their layer alone, in the order of the first."""
    found: dict[str, list[Step]] = {}
    for step in steps:
        launch = step.launch
        size = "" if launch is None else " {}x{}x{}".format(*launch.grid)
        matrices = ""
        if launch is not None and step.name.startswith("dot_"):
            args = launch.arguments
            roles = list(args.roles)[: args.count]
            matrices = f" ({sum(role.rows for role in roles)} x {args.source.cols})"
        found.setdefault(step.name + matrices + size, []).append(step)
    return found


def timed(cards: Cards, engine: CudaEngine, group: list[Step]) -> dict[str, Any]:
    """Time the launches of a group."""

    def run() -> None:
        for step in group:
            step.run()

    seconds = cards.time(engine.device.captured(run), 0.1) / len(group)
    mean = sum(step.bytes for step in group) / len(group)
    found: dict[str, Any] = {"count": len(group), "us": round(seconds * 1e6, 2)}
    if mean * len(group) < _CACHED:
        found["from the cache"] = True
    if mean:
        found |= {"MB": round(mean / 1e6, 3), "GB/s": round(mean / seconds / 1e9, 1)}
    flops = sum(step.flops for step in group) / len(group)
    if flops:
        found["TFLOP/s"] = round(flops / seconds / 1e12, 1)
    launch = group[0].launch
    kernels = getattr(engine.device, "kernels", None)
    if launch is not None and kernels is not None:
        usage = kernels.usage(launch.name)
        found |= {"registers": usage.registers, "local": usage.local, "shared": launch.shared}
        found["blocks of a processor"] = kernels.blocks(launch.name, launch.threads, launch.shared)
    return found
