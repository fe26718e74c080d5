"""What an engine promises, whatever it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rwkv_cli.engine.state import State

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s


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
