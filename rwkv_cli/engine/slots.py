"""How many states a model may keep at once."""

from __future__ import annotations

from math import prod

from rwkv_cli.arch.spec import state_shapes
from rwkv_cli.engine.model import Model
from rwkv_cli.native.hostmemory import free_memory

_SPARE = 512 << 20  # bytes that stay free for everything else
_MOST = 128  # more rows than that go through no engine faster


def slots_for(model: Model) -> int:
    """Say how many states fit beside what is there, as far as more of them go faster."""
    free = free_memory()
    if free is None:
        return _MOST
    return max(1, min(_MOST, (free - _SPARE) // slot_bytes(model)))


def slot_bytes(model: Model) -> int:
    """Count the bytes of a state with the logits after it."""
    numbers = sum(map(prod, state_shapes(model.arch, model.dims).values()))
    return 4 * (numbers + model.dims.vocab)
