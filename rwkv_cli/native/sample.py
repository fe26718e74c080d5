"""Draws tokens with the C++ library; `rwkv_cli/sampling.py` says what is drawn."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rwkv_cli.native.library import check, is_available, library

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Settings(ctypes.Structure):
    """`rwkv_sampling` of rwkv_native.h."""

    _fields_ = (
        ("top_p", ctypes.c_double),
        ("top_k", ctypes.c_int64),
        ("temperature", ctypes.c_float),
        ("min_p", ctypes.c_float),
        ("temperature_first", ctypes.c_int32),
    )


def can_draw(logits: NDArray[np.float32]) -> bool:
    """Tell whether these logits can be handed over: the library is there, and they are float32
    numbers, one after the other.
    """
    return is_available() and logits.dtype == np.float32 and logits.flags.carray


def draw(
    logits: NDArray[np.float32],
    u: float,
    *,
    temperature: float,
    top_p: float,
    top_k: int,
    min_p: float,
    temperature_first: bool,
) -> int | None:
    """Choose a token.

    Args:
        logits: (V,) float32 for which `can_draw` holds; a banned token is -inf.
        u: A uniform number in [0, 1).
        temperature: As of `Sampling`, like the four that follow.
        top_p: See there.
        top_k: See there.
        min_p: See there.
        temperature_first: The order is "openai".

    Returns:
        None when every token is banned or a logit is NaN or +inf.

    Raises:
        NativeError: A setting is out of range.
    """
    token = ctypes.c_int32()
    settings = Settings(top_p, top_k, temperature, min_p, temperature_first)
    address, size = logits.ctypes.data, logits.size
    check(_function()(address, size, ctypes.byref(settings), u, ctypes.byref(token)))
    return token.value if token.value >= 0 else None


@cache
def _function() -> ctypes._NamedFuncPointer:
    """Give the library's function, declared."""
    function = library().rwkv_sample
    function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.POINTER(Settings),
        ctypes.c_double,
        ctypes.POINTER(ctypes.c_int32),
    ]
    return function
