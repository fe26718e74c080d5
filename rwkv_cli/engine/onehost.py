"""What engines have in common that read sequences of different lengths one after another, and whose
tokens are drawn on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

from rwkv_cli.engine.protocol import Engine
from rwkv_cli.engine.state import State
from rwkv_cli.sampling import Choice, choose


def feed_apart(
    engine: Engine,
    tokens: Sequence[Sequence[int]],
    states: Sequence[State],
    wanted: Sequence[bool],
) -> None:
    """Do what `Engine.feed` promises: the single tokens together, everything else by itself."""
    singles = [row for row, fed in enumerate(tokens) if len(fed) == 1]
    if singles:
        engine.decode([tokens[row][0] for row in singles], [states[row] for row in singles])
    for fed, state in zip(tokens, states, strict=True):
        if len(fed) > 1:
            engine.prefill(fed, state)
    for state, is_wanted in zip(states, wanted, strict=True):
        if not is_wanted:
            state.logits = None


def choose_on_host(states: Sequence[State], choices: Sequence[Choice]) -> list[int]:
    """Do what `Engine.choose` promises, one after another."""
    found = []
    for state, choice in zip(states, choices, strict=True):
        assert state.logits is not None
        found.append(choose(state.logits, choice))
    return found
