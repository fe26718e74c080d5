"""Layers that wait in host memory and are brought to a device one after the other.

Two buffers on the device take turns: while a layer is computed from one, the next is copied into
the other. The host never waits for either; events order the two.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from types import SimpleNamespace
from typing import Any, Protocol

import torch

from rwkv_cli.ops.quantized import Quantized

_ALIGNMENT = 256  # bytes: what the widest loads of any device want

Weight = torch.Tensor | Quantized


class Lane(Protocol):
    """Copies to a device beside what it computes."""

    def copy(self, slot: int, target: torch.Tensor, source: torch.Tensor, /) -> None:
        """Fill a buffer, after everything that was asked of the device so far."""

    def wait(self, slot: int, /) -> None:
        """Have what is asked of the device from now on come after the last copy to a buffer."""


class Immediate:
    """Copies at once, where a device has no queues of its own."""

    def copy(self, _slot: int, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy."""
        target.copy_(source)

    def wait(self, _slot: int) -> None:
        """Nothing is under way."""


class Overlapped:
    """Copies in a queue beside the one that computes, on CUDA and XPU devices."""

    def __init__(self, device: torch.device) -> None:
        self._module: Any = torch.get_device_module(device)
        self._device = device
        self._queue = self._module.Stream(device)
        self._done = [self._module.Event() for _ in range(2)]

    def copy(self, slot: int, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy once all that was asked so far is computed."""
        self._queue.wait_stream(self._module.current_stream(self._device))
        with self._module.stream(self._queue):
            target.copy_(source, non_blocking=True)
            self._done[slot].record(self._queue)

    def wait(self, slot: int) -> None:
        """Have the computing queue wait."""
        self._module.current_stream(self._device).wait_event(self._done[slot])


def lane_of(device: str) -> Lane:
    """Choose how to copy to a device."""
    place = torch.device(device)
    return Overlapped(place) if place.type in ("cuda", "xpu") else Immediate()


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor inside the bytes of a layer."""

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        return flat[self.offset : self.offset + self.nbytes].view(self.dtype).view(self.shape)


@dataclass(slots=True)
class Waiting:
    """A layer that waits in host memory.

    Attributes:
        small: What stays on the device: vectors and low-rank factors.
        flat: (bytes,) uint8 all large matrices in one piece, so that one copy brings them.
        parts: Attribute to the tensors that make it up: one, or codes and scales with the precision
            of products.
    """

    small: SimpleNamespace
    flat: torch.Tensor
    parts: dict[str, tuple[tuple[_Part, ...], torch.dtype]]
    _bound: dict[int, SimpleNamespace] = field(default_factory=dict)

    def bound(self, slot: int, buffer: torch.Tensor) -> SimpleNamespace:
        """Give the layer's parameters with the matrices in a buffer."""
        if slot not in self._bound:
            p = SimpleNamespace(**vars(self.small))
            for name, (parts, dtype) in self.parts.items():
                found = [part.of(buffer) for part in parts]
                whole = found[0] if len(found) == 1 else Quantized(found[0], found[1], dtype)
                setattr(p, name, whole)
            self._bound[slot] = p
        return self._bound[slot]


def waiting(
    small: SimpleNamespace,
    shapes: dict[str, list[tuple[tuple[int, ...], torch.dtype]]],
    floats: torch.dtype,
    device: str,
) -> Waiting:
    """Make room in host memory for the large matrices of a layer.

    Args:
        small: What stays on the device.
        shapes: Attribute to shapes and types: of a matrix, or of its codes and its scales.
        floats: What quantized matrices are multiplied in.
        device: Where they will be brought.
    """
    offset, parts = 0, {}
    for name, tensors in shapes.items():
        found = []
        for shape, dtype in tensors:
            found.append(_Part(offset, shape, dtype))
            offset += -(-found[-1].nbytes // _ALIGNMENT) * _ALIGNMENT
        parts[name] = (tuple(found), floats)
    return Waiting(small, host_memory(offset, device), parts)


def host_memory(nbytes: int, device: str) -> torch.Tensor:
    """Give host memory that a device can read beside what it computes.

    On CUDA it is pinned where it lies: torch's own pinned memory is rounded up to the next power of
    two, which wastes up to half of it.
    """
    flat = torch.empty(nbytes, dtype=torch.uint8)
    if torch.device(device).type == "cuda":
        runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        address = flat.data_ptr()
        if int(runtime.cudaHostRegister(address, nbytes, 0)) == 0:
            weakref.finalize(flat, runtime.cudaHostUnregister, address)
    elif torch.device(device).type == "xpu":
        return flat.pin_memory()
    return flat


class Streamed:
    """The layers of a stack of which some wait in host memory; going through them brings each just
    in time, and at the end of a pass the first one for the next.

    Attributes:
        layers: All of them; those that are no `Waiting` lie where they are computed.
        buffers: On the device, two or fewer.
        copies: How many layers were copied so far.
    """

    def __init__(
        self,
        layers: Sequence[SimpleNamespace | Waiting],
        device: str,
        lane: Callable[[str], Lane] = lane_of,
    ) -> None:
        self.layers = layers
        self._waiting = [layer for layer in layers if isinstance(layer, Waiting)]
        size = max(layer.flat.numel() for layer in self._waiting)
        count = min(2, len(self._waiting))
        self.buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(count)]
        self.copies = 0
        self._lane = lane(device)
        self._held: list[int | None] = [None] * count

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[SimpleNamespace]:
        """Give each layer's parameters on its device, to be used before the next is asked for."""
        number = 0
        for layer in self.layers:
            if isinstance(layer, Waiting):
                yield self._take(number)
                number += 1
            else:
                yield layer

    def _take(self, number: int) -> SimpleNamespace:
        """Give a layer that waits, and send for the one after it."""
        slot = self._bring(number, avoid=None)
        self._lane.wait(slot)
        self._bring((number + 1) % len(self._waiting), avoid=slot)
        return self._waiting[number].bound(slot, self.buffers[slot])

    def _bring(self, number: int, avoid: int | None) -> int:
        """Send for a layer that is not there yet: the buffer that it comes to."""
        if number in self._held:
            return self._held.index(number)
        slot = next(s for s in range(len(self.buffers)) if s != avoid)
        flat = self._waiting[number].flat
        self._held[slot] = None  # until the copy is under way
        self._lane.copy(slot, self.buffers[slot][: flat.numel()], flat)
        self._held[slot] = number
        self.copies += 1
        return slot
