"""What this machine can do at best: reading memory, and arithmetic in registers."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_double, c_int32, c_int64, c_void_p
from functools import cache

from rwkv_cli.native.library import check, library
from rwkv_cli.native.pool import Pool

ARITHMETIC = {"fp32": 0, "bf16": 1, "int8": 2}  # rwkv_arithmetic of rwkv_native.h
_UNSUPPORTED = -3


def read_bandwidth(pool: Pool, nbytes: int, seconds: float) -> float:
    """Measure how fast threads read memory together, in bytes a second: the fastest pass.

    Args:
        pool: The threads.
        nbytes: Size of what they read again and again, 1 MiB to 16 GiB; several times the caches.
        seconds: How long, up to 60.

    Raises:
        NativeError: A number is out of range.
        LimitError: There is no memory of that size.
    """
    result = c_double()
    check(_declared().rwkv_measure_read(pool.handle, nbytes, seconds, byref(result)))
    return result.value


def arithmetic_peak(pool: Pool, kind: str) -> float | None:
    """Measure operations a second in registers, a multiplication and its addition being two.

    Args:
        pool: The threads.
        kind: A key of `ARITHMETIC`: fp32 multiply-adds, bf16 or int8 dot products.

    Returns:
        None where the processor has no such instruction.
    """
    result = c_double()
    code = _declared().rwkv_measure_arithmetic(pool.handle, ARITHMETIC[kind], byref(result))
    if code == _UNSUPPORTED:
        return None
    check(code)
    return result.value


@cache
def _declared() -> ctypes.CDLL:
    """Give the library with the types of the functions used here."""
    lib = library()
    lib.rwkv_measure_read.argtypes = (c_void_p, c_int64, c_double, POINTER(c_double))
    lib.rwkv_measure_arithmetic.argtypes = (c_void_p, c_int32, POINTER(c_double))
    return lib
