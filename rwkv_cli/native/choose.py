"""Draws a token for each of many rows of logits, with all threads of a pool."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_double, c_float, c_int32, c_int64, c_void_p
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rwkv_cli.native.library import NativeError, check, library
from rwkv_cli.native.pool import Pool
from rwkv_cli.native.sample import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Penalty(NamedTuple):
    """What the logits of tokens that were generated lose: presence + count * frequency.

    Attributes:
        ids: (n,) those tokens, each once.
        counts: (n,) how often each was generated.
        presence: As of `Sampling`.
        frequency: The same.
    """

    ids: NDArray[np.uint32]
    counts: NDArray[np.float32]
    presence: float
    frequency: float


class Row(NamedTuple):
    """One token to draw; the settings are those of `sample.draw`.

    Attributes:
        logits: (V,) float32.
        never: (n,) tokens that are not drawn.
        penalty: Of repetition.
        settings: The filters.
        u: A uniform number in [0, 1).
    """

    logits: NDArray[np.float32]
    never: NDArray[np.int64]
    penalty: Penalty
    settings: Settings
    u: float


class _Choice(ctypes.Structure):
    """`rwkv_choice` of rwkv_native.h."""

    _fields_ = (
        ("logits", c_void_p),
        ("never", c_void_p),
        ("penalized", c_void_p),
        ("counts", c_void_p),
        ("never_count", c_int64),
        ("penalized_count", c_int64),
        ("sampling", Settings),
        ("uniform", c_double),
        ("presence", c_float),
        ("frequency", c_float),
    )


def choose(pool: Pool, rows: Sequence[Row]) -> list[int]:
    """Draw a token for each row: its id, -1 where none can be drawn. The logits stay as they are.

    Raises:
        NativeError: The rows are of different vocabularies, an id is outside of it, or a setting is
            out of range.
    """
    vocab = len(rows[0].logits) if rows else 0
    if any(row.logits.shape != (vocab,) for row in rows):
        raise NativeError("rows of logits do not have the same length")
    if any(len(row.penalty.ids) != len(row.penalty.counts) for row in rows):
        raise NativeError("penalized tokens and their counts do not have the same number")
    found = (c_int32 * len(rows))()
    choices = (_Choice * len(rows))(*map(_choice, rows))
    check(_function()(pool.handle, choices, len(rows), vocab, found))
    return list(found)


def _choice(row: Row) -> _Choice:
    logits, never, (ids, counts, presence, frequency), settings, u = row
    return _Choice(
        _address(logits, np.float32),
        _address(never, np.int64),
        _address(ids, np.uint32),
        _address(counts, np.float32),
        len(never),
        len(ids),
        settings,
        u,
        presence,
        frequency,
    )


def _address(array: NDArray[np.generic], dtype: type[np.generic]) -> int | None:
    """Give where an array lies that the library reads; None of an empty one.

    Raises:
        NativeError: Its numbers are of another type, or do not follow each other.
    """
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise NativeError(f"an array is not {dtype.__name__} in one piece")
    return int(array.ctypes.data) if array.size else None


@cache
def _function() -> ctypes._NamedFuncPointer:
    """Give the library's function, declared."""
    function = library().rwkv_choose
    function.argtypes = [c_void_p, POINTER(_Choice), c_int32, c_int64, POINTER(c_int32)]
    return function
