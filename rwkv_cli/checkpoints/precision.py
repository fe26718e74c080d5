"""Numbers of a tensor in another precision, a piece at a time; knows no names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from rwkv_cli.checkpoints.tensors import ITEM_BYTES, RawTensor
from rwkv_cli.errors import RefusedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]

FLOATS = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}

_PIECE = 1 << 20  # numbers that are widened at once: 4 MiB
_KINDS = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


def elements(tensor: RawTensor) -> int:
    """How many numbers a tensor has."""
    return prod(tensor.shape)


def plain_bytes(tensor: RawTensor) -> int:
    """How many bytes the elements of a tensor take, also where the file holds another form."""
    return elements(tensor) * ITEM_BYTES[tensor.dtype]


def widened(data: memoryview, dtype: str) -> Float32s:
    """Numbers of a float type as float32, in a row; new memory but for F32."""
    import numpy as np

    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # F64 alone; infinities are noticed where they matter
        return np.frombuffer(data, _KINDS[dtype]).astype(np.float32, copy=False)


def narrowed(values: Float32s, dtype: str) -> memoryview:
    """Float32 numbers rounded to the nearest of a float type, to even where two are as near.

    Raises:
        OverflowError: One is finite, and too large for that type.
    """
    import numpy as np

    data = rounded(values, dtype)
    if np.any(np.isinf(widened(data, dtype)) & ~np.isinf(values)):
        raise OverflowError(dtype)
    return data


def rounded(values: NDArray[Any], dtype: str) -> memoryview:
    """Numbers rounded to the nearest of a float type, to even where two are as near; those that are
    too large become infinite.
    """
    import numpy as np

    if dtype != "BF16":
        with np.errstate(over="ignore"):
            row = np.ascontiguousarray(values, _KINDS[dtype]).reshape(-1)
    else:
        wide = np.ascontiguousarray(values, "<f4").reshape(-1)
        bits = wide.view(np.uint32)
        high = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        high[np.isnan(wide)] = 0x7FC0
        row = high.astype("<u2")
    return row.view(np.uint8).data


def made_of(
    tensor: RawTensor, pieces: Callable[[], Iterator[Float32s]], dtype: str | None = None
) -> RawTensor:
    """A tensor of the same name and shape whose numbers are made when they are asked for.

    Args:
        tensor: What it is made from.
        pieces: Gives the numbers in order, as float32; called for each use of the tensor.
        dtype: Type of the new tensor; None keeps the old one.
    """
    kind = dtype or tensor.dtype

    def derive() -> memoryview:
        out, at = memoryview(bytearray(elements(tensor) * ITEM_BYTES[kind])), 0
        try:
            for piece in pieces():
                data = narrowed(piece, kind)
                out[at : at + data.nbytes] = data
                at += data.nbytes
        except OverflowError:
            raise RefusedError(
                f"{tensor.name} has numbers too large for {kind}", hint="--dtype bf16 or fp32"
            ) from None
        return out

    coding = tensor.coding if dtype is None else None
    return replace(tensor, dtype=kind, derive=derive, coding=coding)


def cast(tensor: RawTensor, dtype: str) -> RawTensor:
    """The same numbers as another float type; the tensor itself where it is of that type."""
    if tensor.dtype == dtype:
        return tensor

    def pieces() -> Iterator[Float32s]:
        data, step = tensor.plain().data, _PIECE * ITEM_BYTES[tensor.dtype]
        for start in range(0, data.nbytes, step):
            yield widened(data[start : start + step], tensor.dtype)

    return made_of(tensor, pieces, dtype)
