"""Where kernels run: a card, seen as the few things that the engine asks of it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from rwkv_cli.native.cuda.kernels import Kernels

Run = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with everything it is started with.

    Attributes:
        name: The kernel.
        grid: Blocks in x, y and z.
        threads: Of a block.
        shared: Bytes of shared memory of a block.
        arguments: The structure that it takes.
    """

    name: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    arguments: ctypes.Structure


class Device(Protocol):
    """A card, or what stands for one.

    Attributes:
        name: For people.
        kind: What decides how sums are rounded: architecture and number of multiprocessors.
        place: Where its tensors lie.
        processors: Multiprocessors, which blocks are spread over.
        shared: Bytes of shared memory that a block may have.
    """

    name: str
    kind: str
    place: torch.device
    processors: int
    shared: int

    def launch(self, launch: Launch) -> None:
        """Start a kernel behind what was started before."""

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        """Multiply (R, K) by (K, N) of one precision into (R, N) float32."""

    def upload(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy a small tensor of the host behind what was started before."""

    def download(self, source: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to copy a small tensor to the host; what is returned waits for it."""

    def captured(self, run: Run) -> Run:
        """Make something quicker to start that does what `run` does; runs it at least once."""

    def guard(self) -> AbstractContextManager[object]:
        """Make the card the one that torch's functions mean."""


class CudaDevice:
    """A card of torch's, with the kernels that were compiled for it.

    Args:
        place: The torch device, with an index.
        kernels: Loaded for it.
        programmatic: Whether a kernel may begin to fetch weights while the one before ends.
    """

    def __init__(
        self, place: torch.device, kernels: Kernels, *, programmatic: bool = False
    ) -> None:
        self.place, self.kernels, self.programmatic = place, kernels, programmatic
        self.name = kernels.device.name
        self.kind = f"sm_{kernels.device.sm}x{kernels.device.multiprocessors}"
        self.processors = kernels.device.multiprocessors
        self.shared = kernels.device.shared

    def launch(self, launch: Launch) -> None:
        """Start a kernel on torch's current stream."""
        self.kernels.launch(
            launch.name,
            launch.grid,
            launch.threads,
            launch.shared,
            launch.arguments,
            torch.cuda.current_stream(self.place).cuda_stream,
            programmatic=self.programmatic,
        )

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        """Multiply with the vendor's library; sums are float32."""
        if a.dtype == torch.float32:
            torch.mm(a, b, out=out)
        else:
            torch.ops.aten.mm.dtype_out(a, b, torch.float32, out=out)

    def upload(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy through pinned memory, so that nobody waits."""
        target.copy_(source.pin_memory(), non_blocking=True)

    def download(self, source: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Copy to pinned memory, with an event behind it."""
        target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        target.copy_(source, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self.place))

        def wait() -> torch.Tensor:
            done.synchronize()
            return target

        return wait

    def guard(self) -> AbstractContextManager[object]:
        """Make the card the current one."""
        return torch.cuda.device(self.place)

    def captured(self, run: Run) -> Run:
        """Capture a CUDA graph."""
        run()  # what libraries set up at first use must not be part of the graph
        torch.cuda.synchronize(self.place)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay
