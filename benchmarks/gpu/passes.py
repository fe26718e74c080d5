"""What measurements of passes share: some that can be repeated, and the card's best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gpu.cards import Cards
from gpu.facts import matmul_rate, read_bandwidth
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.slots import Slot
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State
from rwkv_cli.sampling import Sampling


class Ceilings:
    """What the card gives, measured once when it is first asked for."""

    def __init__(self, cards: Cards, size: int = 2 << 30, square: int = 8192) -> None:
        self.cards, self.size, self.square = cards, size, square
        self._found: tuple[float, float] | None = None

    def pair(self) -> tuple[float, float]:
        """Give bytes and operations a second."""
        if self._found is None:
            read = read_bandwidth(self.cards, self.size)
            self._found = read, matmul_rate(self.cards, self.square)
        return self._found


class Fed:
    """A pass that can be run again and again: it reads some states and writes others, which stay
    as long as this does.

    Args:
        engine: Whose pass it is.
        states: What it reads.
        tokens: As many of each state.
    """

    def __init__(
        self, engine: CudaEngine, states: Sequence[State], tokens: Sequence[Sequence[int]]
    ) -> None:
        self.program, self._run = engine._program(len(states), sum(map(len, tokens)))
        self._before = [engine.slots.on_card(state).cell for state in states]
        self._after = engine.slots.take(len(states))
        with torch.inference_mode():
            engine._feed(self.program, self._before, self._after, tokens)

    def run(self) -> None:
        """Run it."""
        self._run()


def copied(engine: CudaEngine, state: State) -> State:
    """Copy a state to memory of its own: clones would share it, and a cache would hold it."""
    twin = state.clone()
    (cell,) = engine.slots.take(1)
    cell.data.copy_(engine.slots.on_card(state).cell.data)
    twin.move_to(Slot(engine.layout, cell))
    return twin


def plan(sampling: Sampling) -> DrawPlan:
    """Ask for tokens drawn in some way, in a fresh generation that may say anything."""
    nothing: Sequence[int] = ()
    return DrawPlan(
        sampling,
        1,
        1,
        np.array(nothing, np.uint32),
        np.array(nothing, np.float32),
        np.array(nothing, np.intp),
        lambda: np.array(nothing, np.intp),
    )
