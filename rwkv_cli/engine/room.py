"""How many sequences an engine has room for at once: what each takes, and what is free where they
lie.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rwkv_cli.engine.protocol import Engine
from rwkv_cli.native.hostmemory import free_memory

_FLOAT = 4  # bytes
_SPARE = 512 << 20  # bytes that stay free for everything else
_MOST = 256  # sequences beyond which more of them make no pass more worth while


@runtime_checkable
class Measured(Protocol):
    """An engine whose sequences lie elsewhere than in the host's memory, or take more than their
    states.
    """

    def slot_bytes(self) -> int:
        """Count the bytes that a sequence at work takes at most."""

    def free_bytes(self) -> int | None:
        """Count the bytes that sequences may take; None where nothing tells."""


def slot_bytes(engine: Engine, vocab: int) -> int:
    """Count the bytes that a sequence at work takes at most: its state, and what follows it.

    Args:
        engine: Whose sequence it is.
        vocab: Tokens that the model knows.
    """
    if isinstance(engine, Measured):
        return engine.slot_bytes()
    # The logits of a pass are there until each sequence has a copy of its own.
    return engine.zero_state().nbytes + 2 * _FLOAT * vocab


def free_bytes(engine: Engine) -> int | None:
    """Count the bytes that sequences may take beside what is there; None where nothing tells."""
    return engine.free_bytes() if isinstance(engine, Measured) else free_memory()


def room_for(engine: Engine, vocab: int) -> int:
    """Say how many sequences to compute at once: as many as fit, as far as more of them go faster.

    Args:
        engine: Whose sequences they are.
        vocab: Tokens that the model knows.
    """
    most, free = min(_MOST, engine.chunk), free_bytes(engine)
    if free is None:
        return most
    return max(1, min(most, (free - _SPARE) // slot_bytes(engine, vocab)))
