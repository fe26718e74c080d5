"""What a program of the engine launches, step by step, and the bytes that each must move."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from rwkv_cli.engine.cuda.decode import Decode
from rwkv_cli.engine.cuda.device import Device, Launch
from rwkv_cli.engine.cuda.rows import Rows
from rwkv_cli.engine.cuda.weights import TYPES

_WIDTH = {TYPES["fp32"]: 4.0, TYPES["bf16"]: 2.0, TYPES["fp16"]: 2.0}
_BLOCK = {TYPES["int8"]: 1088, TYPES["int4"]: 576}  # bytes of 16 rows and 64 columns
_PANEL = {TYPES["int8"]: 1 + 2 / 32, TYPES["int4"]: 1 / 2 + 2 / 32}  # bytes of a weight there


@dataclass(frozen=True)
class Step:
    """A launch, or a product of the vendor's library.

    Attributes:
        name: The kernel; of a product, its sizes.
        run: Does it again.
        bytes: Of weights and states that it has to move.
        flops: Of a product.
        launch: The launch; None for a product.
        live: Share of the hidden units that are not zero, of the value matrix alone.
    """

    name: str
    run: Callable[[], None]
    bytes: float
    flops: float = 0.0
    launch: Launch | None = None
    live: float | None = None


class _Recorder:
    """A device that notes what is done on another."""

    def __init__(self, device: Device, built: Decode | Rows) -> None:
        self._launch, self._product, self._built = device.launch, device.product, built
        self.steps: list[Step] = []

    def launch(self, launch: Launch) -> None:
        live = None
        if launch.name.startswith("value_"):
            hidden = self._built.buffer("hidden", launch.arguments.inputs)
            live = float((hidden != 0).any(0).float().mean())
        count = bytes_of(launch, 1.0 if live is None else live)
        run = lambda: self._launch(launch)  # noqa: E731
        self.steps.append(Step(launch.name, run, count, launch=launch, live=live))
        self._launch(launch)

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        moved = sum(t.numel() * t.element_size() for t in (a, b, out))
        name = f"product {len(a)}x{len(b)}x{b.shape[1]}"
        run = lambda: self._product(a, b, out)  # noqa: E731
        self.steps.append(Step(name, run, moved, 2.0 * a.numel() * b.shape[1]))
        self._product(a, b, out)


def recorded(built: Decode | Rows) -> list[Step]:
    """Run a program once, one step after the other, and give its steps."""
    device = built.program.device
    recorder = _Recorder(device, built)
    # A program calls its device's methods: they are another's while it runs.
    vars(device).update(launch=recorder.launch, product=recorder.product)
    try:
        with torch.inference_mode():
            built.program.run()
    finally:
        del vars(device)["launch"], vars(device)["product"]
    return recorder.steps


def bytes_of(launch: Launch, live: float) -> float:
    """Give the bytes of weights and states that a launch has to move.

    Args:
        launch: Of any kernel of a program.
        live: Share of the hidden units that are not zero.
    """
    args, name = launch.arguments, launch.name.partition("_")[0]
    if name == "dot":
        return sum(_matrix(role.type, role.rows, args.source.cols) for role in _roles(args))
    if name == "value":
        line = args.outputs * (_PANEL.get(args.type) or _WIDTH[args.type])
        return live * args.inputs * line
    if name == "embed":
        return launch.grid[0] * args.width * _WIDTH[args.type]
    if name == "mix6":
        return 5.0 * args.up.rank * args.source.cols * _WIDTH[args.up.type]
    if name in ("head6", "head7"):
        ups = list(args.up) if name == "head7" else [args.raise_decay]
        weights = sum(up.rank * args.width * _WIDTH[up.type] for up in ups)
        return weights + 8.0 * launch.grid[1] * args.width * (args.width // launch.grid[0])
    if name in ("scan6", "scan7"):
        return 8.0 * launch.grid[2] * args.width * (args.width // launch.grid[0])
    if name == "unpack":
        return args.rows * args.cols * (_PANEL[args.type] + _WIDTH[args.plane_type])
    return 0.0


def _roles(args: Any) -> list[ctypes.Structure]:
    return list(args.roles)[: args.count]


def _matrix(kind: int, rows: int, cols: int) -> float:
    """Give the bytes of a matrix that lies by rows."""
    if kind in _BLOCK:
        return float(_BLOCK[kind] * -(-rows // 16) * -(-cols // 64))
    return rows * cols * _WIDTH[kind]


@dataclass(frozen=True)
class Floor:
    """The least that a pass takes.

    Attributes:
        bytes: Of weights and states that it has to move, zeros of relu(k)^2 skipped.
        flops: Of products of the vendor's library.
        live: Mean share of the hidden units that are not zero; None where nobody looks.
    """

    bytes: float
    flops: float
    live: float | None

    def seconds(self, read: float, matmul: float) -> float:
        """Give the time on a card of some bytes and operations a second."""
        return max(self.bytes / read, self.flops / matmul)


def floor(steps: list[Step]) -> Floor:
    """Add up steps."""
    lives = [step.live for step in steps if step.live is not None]
    return Floor(
        sum(step.bytes for step in steps),
        sum(step.flops for step in steps),
        sum(lives) / len(lives) if lives else None,
    )
