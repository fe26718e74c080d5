"""Memory for rows of numbers that are written again and again, a row at a time.

Fresh memory costs more than what is computed into it: the system has to clear each page. So a row
that nobody refers to any more is used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]

_SPARE = 288  # rows that wait for use, twice those of a pass: more would be memory lost to others
_LINE = 64  # bytes of a cache line, where a row begins


class Rows:
    """Gives arrays of one length.

    Args:
        length: Numbers of a row.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._free: list[NDArray[np.uint8]] = []

    def take(self) -> Float32s:
        """Give a row (length,) float32 of any content that nobody else has: its memory comes back
        when the last array that looks at it is gone.
        """
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(4 * self._length + _LINE, np.uint8)
        row: Float32s = np.asarray(_Loan(memory, self._length, self._free))
        return row


class _Loan:
    """Holds the memory of a row for the arrays that look at it, whose base it is."""

    __slots__ = ("__array_interface__", "_free", "_memory")

    def __init__(
        self, memory: NDArray[np.uint8], length: int, free: list[NDArray[np.uint8]]
    ) -> None:
        self._memory, self._free = memory, free
        address = memory.ctypes.data
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "typestr": np.dtype(np.float32).str,
            "shape": (length,),
            "data": (address + -address % _LINE, False),
        }

    def __del__(self) -> None:
        if len(self._free) < _SPARE:
            self._free.append(self._memory)
