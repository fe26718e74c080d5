"""Rearranges and recomputes tensors when they are asked for; knows shapes and dtypes, no names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rwkv_cli.checkpoints.precision import rounded
from rwkv_cli.checkpoints.tensors import ITEM_BYTES, RawTensor

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

# Narrow floats are widened as bits, since numpy has no bfloat16.
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def renamed(tensor: RawTensor, name: str) -> RawTensor:
    """The same tensor under another name."""
    return replace(tensor, name=name)


def reshaped(tensor: RawTensor, shape: tuple[int, ...]) -> RawTensor:
    """The same elements in the same order under another shape of as many elements."""
    return replace(tensor, shape=shape, derive_rows=None)


def row(tensor: RawTensor, index: int) -> RawTensor:
    """One row of the first dimension; it stays where it is when it can."""
    shape = tensor.shape[1:]
    if tensor.derive is not None:
        return rearranged(tensor, shape, lambda elements: elements[index])
    width = tensor.nbytes // tensor.shape[0]
    data = tensor.data[index * width : (index + 1) * width]
    return RawTensor(tensor.name, tensor.dtype, shape, data)


def transposed(tensor: RawTensor) -> RawTensor:
    """The tensor with its last two dimensions exchanged."""
    *batch, height, width = tensor.shape
    return rearranged(tensor, (*batch, width, height), lambda elements: elements.swapaxes(-1, -2))


def rearranged(
    tensor: RawTensor, shape: tuple[int, ...], change: Callable[[Array], Array]
) -> RawTensor:
    """A tensor of the same elements in another order, made anew each time it is asked for.

    Args:
        tensor: What it is made of.
        shape: What it becomes.
        change: Takes the elements as unsigned integers of their width, in the old shape.
    """

    def derive() -> memoryview:
        import numpy as np

        if 0 in tensor.shape:
            return memoryview(bytearray())  # the other axes may be longer than numpy allows
        kind = np.dtype(f"<u{ITEM_BYTES[tensor.dtype]}")
        return as_bytes(change(np.frombuffer(tensor.plain().data, kind).reshape(tensor.shape)))

    return replace(tensor, shape=shape, derive=derive, derive_rows=None)


def computed(
    tensor: RawTensor,
    shape: tuple[int, ...],
    change: Callable[[Array], Array],
    dtype: str = "F32",
) -> RawTensor:
    """A tensor of new values, made anew each time it is asked for.

    Args:
        tensor: What it is made of; its elements are floats.
        shape: What it becomes.
        change: Takes the elements in the old shape: as they are, or as float32 where numpy does
            not know their type.
        dtype: Type of the new elements, which holds them: F64, F32, F16 or BF16.
    """

    def derive() -> memoryview:
        if 0 in tensor.shape:
            return memoryview(bytearray())
        return rounded(change(numbers(tensor)), dtype)

    return replace(tensor, dtype=dtype, shape=shape, derive=derive, derive_rows=None)


def numbers(tensor: RawTensor) -> Array:
    """The values of a tensor of floats in its shape; those of BF16 as float32."""
    import numpy as np

    data = tensor.plain().data
    if tensor.dtype == "BF16":
        wide = np.frombuffer(data, "<u2").astype("<u4")
        wide <<= np.uint32(16)
        return wide.view("<f4").reshape(tensor.shape)
    return np.frombuffer(data, _FLOATS[tensor.dtype]).reshape(tensor.shape)


def as_bytes(values: Array) -> memoryview:
    """The elements of an array in a row, as single bytes in memory of their own."""
    import numpy as np

    row = np.array(values, order="C", copy=None)
    owned = row if row.flags.writeable else row.copy()
    return owned.reshape(-1).view(np.uint8).data
