"""Tensor operations under the formulas of `arch`; knows shapes and dtypes, no versions.

The names resolve lazily, so that reading an architecture's tables never imports torch: the first
call of an operation does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rwkv_cli.ops.mixing import group_norm as group_norm
    from rwkv_cli.ops.mixing import layer_norm as layer_norm
    from rwkv_cli.ops.mixing import normalize as normalize
    from rwkv_cli.ops.mixing import silu as silu
    from rwkv_cli.ops.mixing import split_heads as split_heads
    from rwkv_cli.ops.mixing import squared_relu as squared_relu
    from rwkv_cli.ops.mixing import token_shift as token_shift
    from rwkv_cli.ops.products import linear as linear
    from rwkv_cli.ops.products import project as project
    from rwkv_cli.ops.recurrence import wkv4 as wkv4
    from rwkv_cli.ops.recurrence import wkv6 as wkv6
    from rwkv_cli.ops.recurrence import wkv7 as wkv7

_ROOMS = {
    "linear": "products",
    "project": "products",
    "group_norm": "mixing",
    "layer_norm": "mixing",
    "normalize": "mixing",
    "silu": "mixing",
    "split_heads": "mixing",
    "squared_relu": "mixing",
    "token_shift": "mixing",
    "wkv4": "recurrence",
    "wkv6": "recurrence",
    "wkv7": "recurrence",
}


def __getattr__(name: str) -> object:
    """Import the room that holds an operation at its first use."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
