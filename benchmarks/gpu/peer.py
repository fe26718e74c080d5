"""The package `rwkv` on the same card, in the same run and on models of the same shapes."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu.cards import Cards
from gpu.models import SHAPES, tensors
from gpu.peer_build import environment, why_plain
from gpu.record import Deadline, Unit, Values
from gpu.tools import run

RUNNER = Path(__file__).with_name("peer_child.py")
MODELS = ("v7-0.1b", "v7-1.5b")


def units(cards: Cards, folder: Path, deadline: Deadline) -> list[Unit]:
    """List the part's units."""
    return [Unit(name, _bound(cards, name, folder, deadline), 15) for name in MODELS]


def _bound(cards: Cards, name: str, folder: Path, deadline: Deadline) -> Callable[[], Values]:
    return lambda: measured(cards, name, folder, deadline)


def measured(cards: Cards, name: str, folder: Path, deadline: Deadline) -> Values:
    """Write a model for the package and let it run: with its own kernels, else with torch's."""
    if importlib.util.find_spec("rwkv") is None:
        raise ModuleNotFoundError("the package rwkv is not installed")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{name}.pth"
        torch.save(dict(in_halves(cards, name)), path)
        why = why_plain()
        for kernels in [True, False] if why is None else [False]:
            seconds = deadline.left() * (0.6 if kernels else 1)
            how = environment(folder, kernels=kernels)
            done = run([sys.executable, RUNNER, path], seconds, **how)
            values = read(done.output)
            if values is not None:
                yield "kernels", "its own" if kernels else f"torch's: {why}"
                yield from values.items()
                return
            why = "its own did not work: " + " ".join(done.output.split())[-300:]
    raise RuntimeError(why)


def in_halves(cards: Cards, name: str) -> Values:
    """Draw a model as a file of the package holds it."""
    for key, tensor in tensors(SHAPES[name], cards.place):
        yield key, tensor.half().cpu()


def read(output: str) -> dict[str, Any] | None:
    """Find what the runner measured; None when it did not get so far."""
    for line in reversed(output.splitlines()):
        if line.startswith("measured: "):
            values: dict[str, Any] = json.loads(line.removeprefix("measured: "))
            return values
    return None
