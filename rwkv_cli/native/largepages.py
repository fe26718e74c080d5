"""Moves weights that are mapped from a file onto large pages, while they are in use.

Memory mapped from a file comes in pages of 4 KiB, and a processor that streams through gigabytes of
them waits for its address tables. On Linux the same bytes on pages of 2 MiB are read up to a third
faster. They are copied in the background once a model is at work, so that starting stays instant.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np

from rwkv_cli.native.hostmemory import free_memory
from rwkv_cli.native.library import library

_PIECE = 32 << 20  # bytes moved between two looks at whether the program is about to end
_GAP = 1 << 20  # what may lie between two weights that are moved together
_LEAST = 64 << 20  # below that the caches matter more


def move_in_background(buffers: Iterable[Any]) -> threading.Thread | None:
    """Start moving read-only buffers; None where that is not worth it or not possible.

    The memory of the program does not grow by it: each large page replaces those of the file. But
    the system cannot drop it under pressure as it can drop a file's, so there must be twice as much
    free.
    """
    runs = _joined(buffers)
    total = sum(end - start for start, end, _ in runs)
    if sys.platform != "linux" or total < _LEAST or (free_memory() or 0) < 2 * total:
        return None
    thread = threading.Thread(target=_move, args=(runs,), name="large pages")
    thread.start()
    return thread


_Run = tuple[int, int, list[Any]]


def _joined(buffers: Iterable[Any]) -> list[_Run]:
    """Join buffers that lie close to each other: first address, end, and what keeps them alive."""
    runs: list[_Run] = []
    views = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
    for view in sorted(views, key=lambda v: v.ctypes.data):
        start, end = view.ctypes.data, view.ctypes.data + view.nbytes
        if runs and start - runs[-1][1] <= _GAP:
            first, last, kept = runs[-1]
            runs[-1] = (first, max(last, end), [*kept, view])
        else:
            runs.append((start, end, [view]))
    return runs


def _move(runs: list[_Run]) -> None:
    for start, end, _ in runs:
        for piece in range(start, end, _PIECE):
            # The interpreter waits for this thread when the program ends.
            if not threading.main_thread().is_alive():
                return
            # Almost a large page more: the one across the border belongs to the first piece.
            stop = min(end, piece + _PIECE + (2 << 20) - 1)
            if _declared().rwkv_promote(piece, stop - piece) != 0:
                return  # the file's pages stay, and serve as well


@cache
def _declared() -> ctypes.CDLL:
    """Give the library with the types of the functions used here."""
    lib = library()
    lib.rwkv_promote.argtypes = (ctypes.c_void_p, ctypes.c_int64)
    return lib
