"""What an engine promises, whatever it runs on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rwkv_cli.engine.state import State
from rwkv_cli.sampling import Choice, Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rwkv_cli.engine.state import Float32s


@dataclass(frozen=True, slots=True)
class DrawPlan:
    """How an engine is to draw the tokens of a generation.

    Attributes:
        sampling: The settings.
        seed: Of the random numbers, as of `sampling.uniform`.
        stream: The same.
        penalty_ids: (n,) tokens generated so far.
        penalty_counts: (n,) float32 how often each was, faded.
        never: (n,) tokens that are never drawn.
        uncounted: Gives the (n,) tokens whose repetition is not counted.
    """

    sampling: Sampling
    seed: int
    stream: int
    penalty_ids: NDArray[np.uint32]
    penalty_counts: NDArray[np.float32]
    never: NDArray[np.intp]
    uncounted: Callable[[], NDArray[np.intp]]


class Draws(Protocol):
    """Draws the tokens of one generation where their logits are."""

    def follow(self, state: State, token: int) -> int | None:
        """Feed a token to a state and give the next, drawn from it; -1 when none can be drawn, None
        when this engine draws no more: then nothing was fed.
        """


class Engine(Protocol):
    """Runs a model; advances states in place.

    Attributes:
        numerics: Short name of the arithmetic, such as "torch cpu bf16": a restored state
            continues bit for bit only where this is equal.
        chunk: Tokens of a prefill computed at once.
        exact_splits: Whether a prefill gives the same bits however it is cut.
    """

    numerics: str
    chunk: int
    exact_splits: bool

    def zero_state(self) -> State:
        """Make the state before any token."""

    def prefill(self, tokens: Sequence[int], state: State) -> Float32s:
        """Feed one or more tokens to a state: (V,) float32 logits of the next one."""

    def decode(self, tokens: Sequence[int], states: Sequence[State]) -> Float32s:
        """Feed one token to each of B states, in one pass over the weights: (B, V)
        float32 logits.
        """

    def feed(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State], wanted: Sequence[bool]
    ) -> None:
        """Feed one or more tokens to each of B states, no more than `chunk` in all, in as few
        passes over the weights as the engine can.

        Args:
            tokens: Those of each state.
            states: Advanced in place; afterwards each wanted one has its `logits`.
            wanted: Whether what follows a state's last token matters; where it does not, its
                logits are None afterwards.
        """

    def choose(self, states: Sequence[State], choices: Sequence[Choice]) -> list[int]:
        """Draw a token from the logits of each of B states: its id, -1 where none can be drawn."""

    def draws(self, plan: DrawPlan) -> Draws | None:
        """Begin to draw the tokens of a generation; None where that is left to the host."""
