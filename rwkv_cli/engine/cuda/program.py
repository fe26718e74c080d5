"""What the card does for a pass, written down once: launches and products on memory of their own,
to be run again and again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch

from rwkv_cli.engine.cuda.device import Device, Launch
from rwkv_cli.native.cuda.structures import constants, structures


class Arena:
    """Memory that programs share, which run one after the other: what is in it means nothing to the
    next, but for zeros that nobody writes.

    Args:
        device: Where it is.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._buffers: dict[tuple[Any, ...], torch.Tensor] = {}

    def buffer(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, room: int
    ) -> torch.Tensor:
        """Give the first rows of the memory of a name, which has room for more."""
        key = name, room, *shape[1:], dtype
        if key not in self._buffers:
            self._buffers[key] = torch.zeros(
                room, *shape[1:], dtype=dtype, device=self.device.place
            )
        return self._buffers[key][: shape[0]]


class Program:
    """Steps in order.

    Args:
        device: Who does them.
        arena: Memory that it shares with others.
        overlaps: Whether its kernels may begin while the ones before them end.

    Attributes:
        names: Of the kernels, in order; "product" where the vendor's library multiplies.
    """

    def __init__(
        self, device: Device, arena: Arena | None = None, *, overlaps: bool = True
    ) -> None:
        self.device, self._arena, self._overlaps = device, arena, overlaps
        self.names: list[str] = []
        self._steps: list[Callable[[], None]] = []
        self._kept: list[torch.Tensor] = []  # what addresses in arguments point into
        self._buffers: dict[str, torch.Tensor] = {}

    def buffer(
        self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Give the program's memory of a name, zero at first; it keeps its size and place."""
        if name not in self._buffers:
            self._buffers[name] = torch.zeros(*shape, dtype=dtype, device=self.device.place)
        return self._found(name, shape, dtype)

    def _found(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        found = self._buffers[name]
        assert found.shape == torch.Size(shape), name
        assert found.dtype == dtype, name
        return found

    def shared(
        self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, room: int
    ) -> torch.Tensor:
        """Give memory of a name that other programs use as well, at other times.

        Args:
            name: Its name.
            shape: Rows first.
            dtype: Of its numbers.
            room: Rows that the largest program needs which shares it.
        """
        assert self._arena is not None
        if name not in self._buffers:
            self._buffers[name] = self._arena.buffer(name, shape, dtype, room)
        return self._found(name, shape, dtype)

    def kernel(
        self,
        name: str,
        kind: str,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        **fields: Any,
    ) -> None:
        """Add a kernel.

        Args:
            name: The kernel.
            kind: The structure of its arguments.
            grid: Blocks in x, y and z.
            threads: Of a block.
            shared: Bytes of shared memory of a block.
            fields: The structure's fields: numbers; tensors or None for pointers; structures as
                `struct` makes them; lists of those for arrays. What is left out is zero.
        """
        arguments = self.struct(kind, **fields)
        launch = Launch(name, grid, threads, shared, arguments, self._overlaps)
        device = self.device
        self.names.append(name)
        self._steps.append(lambda: device.launch(launch))

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        """Add a product of matrices by the vendor's library, (R, K) by (K, N) to float32."""
        device = self.device
        self.names.append("product")
        self._steps.append(lambda: device.product(a, b, out))

    def struct(self, kind: str, **fields: Any) -> ctypes.Structure:
        """Make a structure of the kernels."""
        made = structures()[kind]()
        for name, value in fields.items():
            if isinstance(value, list):
                for index, item in enumerate(value):
                    getattr(made, name)[index] = self._plain(item)
            else:
                setattr(made, name, self._plain(value))
        return made

    def _plain(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            assert value.is_contiguous()
            self._kept.append(value)
            return value.data_ptr()
        return value

    def address(self, view: torch.Tensor) -> int:
        """Give where a view begins that need not be in one piece; its memory is kept."""
        self._kept.append(view)
        return view.data_ptr()

    def run(self) -> None:
        """Start every step."""
        for step in self._steps:
            step()


def shared_bytes(*parts: int) -> int:
    """Give the bytes that `Carve` of the kernels takes for these parts."""
    return sum(-(-part // 16) * 16 for part in parts)


def constant(name: str) -> int:
    """Give a whole number that the kernels name."""
    return constants()[name]
