"""Threads of the C++ library that wait for work together with the one that calls."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_int32, c_void_p
from functools import cache

from rwkv_cli.native.library import check, library


class Pool:
    """A pool of threads; it ends with the object.

    Args:
        threads: How many work, the calling one among them.

    Attributes:
        handle: What the library's functions take.
        threads: The number.

    Raises:
        UnavailableError: There is no native library.
        NativeError: The number makes no sense.
    """

    def __init__(self, threads: int) -> None:
        self._library = _declared()
        self.handle = c_void_p()
        check(self._library.rwkv_pool_new(threads, byref(self.handle)))
        self.threads = threads

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.rwkv_pool_free(self.handle)


@cache
def _declared() -> ctypes.CDLL:
    """Give the library with the types of the functions used here."""
    lib = library()
    lib.rwkv_pool_new.argtypes = (c_int32, POINTER(c_void_p))
    lib.rwkv_pool_free.argtypes = (c_void_p,)
    lib.rwkv_pool_free.restype = None
    return lib
