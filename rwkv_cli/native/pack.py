"""Matrices into the types and layouts that the C++ kernels read, and back.

The layouts are described in native/src/formats.h.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_double, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rwkv_cli.native.library import NativeError, check, library
from rwkv_cli.native.pool import Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

# rwkv_type, under the names that checkpoints and settings have for them.
TYPES = {"fp32": 0, "bf16": 1, "fp16": 2, "int8": 3, "int4": 4}
SOURCES = {"F32": 0, "BF16": 1, "F16": 2, "F64": 5}
LAYOUTS = {"rows": 0, "panels": 1}

_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8}
_UNSUPPORTED = -3


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix as a checkpoint has it.

    Attributes:
        data: Its bytes, row-major, at any address.
        dtype: A key of `SOURCES`.
        rows: Outputs.
        cols: Inputs.
        transposed: It has inputs as rows.
    """

    data: Any
    dtype: str
    rows: int
    cols: int
    transposed: bool = False


class UnpackableError(NativeError):
    """A matrix has numbers that the wanted type cannot hold."""


def packed_bytes(dtype: str, layout: str, rows: int, cols: int) -> int:
    """Give the size of a matrix of `rows` outputs and `cols` inputs.

    Args:
        dtype: A key of `TYPES`.
        layout: A key of `LAYOUTS`.
        rows: Outputs.
        cols: Inputs.

    Raises:
        NativeError: The sizes make no sense.
    """
    size = int(_declared().rwkv_packed_bytes(TYPES[dtype], LAYOUTS[layout], rows, cols))
    check(min(size, 0))
    return size


def pack(pool: Pool, source: Matrix, dtype: str, layout: str, target: Any) -> float:
    """Convert a matrix into `target`.

    Args:
        pool: Threads that do it.
        source: The matrix.
        dtype: The wanted type, a key of `TYPES`.
        layout: A key of `LAYOUTS`.
        target: A writable buffer of `packed_bytes`.

    Returns:
        The relative error ||packed - source|| / ||source|| of int8 and int4; 0 for float types,
        where nobody asks.

    Raises:
        UnpackableError: It has a NaN or an infinity, or numbers too large for the type.
        NativeError: The sizes make no sense, or a buffer is too small.
    """
    given, taken = np.frombuffer(source.data, np.uint8), np.frombuffer(target, np.uint8)
    rows, cols = source.rows, source.cols
    if given.nbytes < rows * cols * _BYTES[source.dtype]:
        raise NativeError(f"a matrix of {rows} x {cols} {source.dtype} has {given.nbytes} bytes")
    if not taken.flags.writeable:
        raise NativeError("a matrix cannot be packed into memory that is only for reading")
    error = c_double()
    code = _declared().rwkv_pack(
        pool.handle, given.ctypes.data, SOURCES[source.dtype], int(source.transposed),
        TYPES[dtype], LAYOUTS[layout], rows, cols, taken.ctypes.data, taken.nbytes,
        byref(error) if dtype in ("int8", "int4") else None,
    )  # fmt: skip
    if code == _UNSUPPORTED:
        raise UnpackableError(library().rwkv_last_error().decode("utf-8", "replace"))
    check(code)
    return error.value


def unpack(source: Any, dtype: str, layout: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Give a packed matrix as rows x cols float32.

    Raises:
        NativeError: The buffer is too small, or the sizes make no sense.
    """
    given = np.frombuffer(source, np.uint8)
    packed_bytes(dtype, layout, *shape)
    target = np.empty(shape, np.float32)
    check(
        _declared().rwkv_unpack(
            given.ctypes.data, TYPES[dtype], LAYOUTS[layout], *shape, given.nbytes,
            target.ctypes.data,
        )
    )  # fmt: skip
    return target


@cache
def _declared() -> ctypes.CDLL:
    """Give the library with the types of the functions used here."""
    lib = library()
    lib.rwkv_packed_bytes.argtypes = (c_int32, c_int32, c_int64, c_int64)
    lib.rwkv_packed_bytes.restype = c_int64
    lib.rwkv_pack.argtypes = (
        c_void_p, c_void_p, c_int32, c_int32, c_int32, c_int32, c_int64, c_int64, c_void_p,
        c_int64, POINTER(c_double),
    )  # fmt: skip
    lib.rwkv_unpack.argtypes = (c_void_p, c_int32, c_int32, c_int64, c_int64, c_int64, c_void_p)
    return lib
