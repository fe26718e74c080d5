"""Rearranges and recomputes tensors into new buffers; knows shapes and dtypes, no names."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import ITEM_BYTES, RawTensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def renamed(tensor: RawTensor, name: str) -> RawTensor:
    """The same tensor under another name."""
    return replace(tensor, name=name)


def reshaped(tensor: RawTensor, shape: tuple[int, ...]) -> RawTensor:
    """The same elements in the same order under another shape of as many elements."""
    return replace(tensor, shape=shape)


def rows(tensor: RawTensor, start: int, count: int) -> memoryview:
    """The bytes of `count` rows of the first dimension, from row `start`."""
    width = tensor.nbytes // tensor.shape[0]
    return tensor.data[start * width : (start + count) * width]


def transposed(tensor: RawTensor, source: Source) -> RawTensor:
    """A copy with the last two dimensions exchanged.

    Raises:
        RefusedError: The copies made for this file would together be larger than the file.
    """
    *batch, height, width = tensor.shape
    out = source.allocate(tensor.nbytes)
    if out:
        import numpy as np

        kind = np.dtype(f"<u{ITEM_BYTES[tensor.dtype]}")
        whole = prod(batch)
        target = np.frombuffer(out, kind).reshape(whole, width, height)
        target[...] = np.frombuffer(tensor.data, kind).reshape(whole, height, width).swapaxes(1, 2)
    shape = (*batch, width, height)
    return RawTensor(tensor.name, tensor.dtype, shape, memoryview(out))


def as_float64(tensor: RawTensor) -> npt.NDArray[np.float64]:
    """The elements of an F32 tensor in a row, as float64."""
    import numpy as np

    return np.frombuffer(tensor.data, "<f4").astype(np.float64)


def with_values(tensor: RawTensor, values: npt.NDArray[np.float64], source: Source) -> RawTensor:
    """An F32 tensor of the same shape with new values.

    Raises:
        RefusedError: The copies made for this file would together be larger than the file.
    """
    import numpy as np

    out = source.allocate(tensor.nbytes)
    np.frombuffer(out, "<f4")[...] = values
    return RawTensor(tensor.name, "F32", tensor.shape, memoryview(out))
