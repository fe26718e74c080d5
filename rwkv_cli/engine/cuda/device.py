"""Where kernels run: a card, seen as the few things that the engine asks of it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from rwkv_cli.engine.torch_states import free_on_card
from rwkv_cli.native.cuda.kernels import Kernels

Run = Callable[[], None]

_WIDE = 4096


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with everything it is started with.

    Attributes:
        name: The kernel.
        grid: Blocks in x, y and z.
        threads: Of a block.
        shared: Bytes of shared memory of a block.
        arguments: The structure that it takes.
        overlaps: Whether it may begin while the one before ends, where the device does that at all.
    """

    name: str
    grid: tuple[int, int, int]
    threads: int
    shared: int
    arguments: ctypes.Structure
    overlaps: bool = True


class Device(Protocol):
    """A card, or what stands for one.

    Attributes:
        name: For people.
        kind: What decides how sums are rounded: architecture and number of multiprocessors.
        place: Where its tensors lie.
        processors: Multiprocessors, which blocks are spread over.
        shared: Bytes of shared memory that a block may have.
        programmatic: Whether a kernel may begin to fetch weights while the one before ends.
    """

    name: str
    kind: str
    place: torch.device
    processors: int
    shared: int
    programmatic: bool

    def launch(self, launch: Launch) -> None:
        """Start a kernel behind what was started before."""

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        """Multiply (R, K) by (K, N) of one precision into (R, N) float32."""

    def upload(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copy a small tensor of the host behind what was started before."""

    def download(self, source: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to copy a small tensor to the host; what is returned waits for it."""

    def captured(self, run: Run) -> Run:
        """Make something quicker to start that does what `run` does."""

    def blocks(self, kernel: str, threads: int, shared: int) -> int:
        """Count the blocks of a kernel that a processor runs at the same time."""

    def free_bytes(self) -> int | None:
        """Count the bytes of memory that can be had; None where nothing tells."""

    def guard(self) -> AbstractContextManager[object]:
        """Make the card the one that torch's functions mean."""


def overlap_pays(width: int, dtype: str) -> bool:
    """Tell whether a model of so many channels is faster where kernels begin while the one before
    ends: on an H200 neither wide ones in int8 nor any in int4 were
    (benchmarks/records/gpu-second.md).
    """
    return dtype != "int4" and (dtype != "int8" or width < _WIDE)


class CudaDevice:
    """A card of torch's, with the kernels that were compiled for it.

    Args:
        place: The torch device, with an index.
        kernels: Loaded for it.
        programmatic: Whether a kernel may begin to fetch weights while the one before ends; where
            card or driver do not know that, none does.
    """

    def __init__(self, place: torch.device, kernels: Kernels, *, programmatic: bool = True) -> None:
        self.place, self.kernels = place, kernels
        self.programmatic = programmatic and kernels.programmatic
        self.name = kernels.device.name
        self.kind = f"sm_{kernels.device.sm}x{kernels.device.multiprocessors}"
        self.processors = kernels.device.multiprocessors
        self.shared = kernels.device.shared
        # One of its own: torch's is of the first card that anything was captured on.
        self._stream = torch.cuda.Stream(place)  # type: ignore[no-untyped-call]

    def launch(self, launch: Launch) -> None:
        """Start a kernel on torch's current stream."""
        self.kernels.launch(
            launch.name,
            launch.grid,
            launch.threads,
            launch.shared,
            launch.arguments,
            torch.cuda.current_stream(self.place).cuda_stream,
            programmatic=self.programmatic and launch.overlaps,
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

    def free_bytes(self) -> int:
        """Ask the driver, and torch."""
        return free_on_card(self.place)

    def guard(self) -> AbstractContextManager[object]:
        """Make the card the current one."""
        return torch.cuda.device(self.place)

    def blocks(self, kernel: str, threads: int, shared: int) -> int:
        """Ask the driver."""
        return self.kernels.blocks(kernel, threads, shared)

    def captured(self, run: Run) -> Run:
        """Run it as it is at first, when libraries set themselves up; from the second time on as a
        CUDA graph.
        """
        return _Repeated(run, self._stream)


class _Repeated:
    """What is run again and again.

    Args:
        run: Starts it step by step.
        stream: What it is captured on; of the card that it runs on.
    """

    def __init__(self, run: Run, stream: torch.cuda.Stream) -> None:
        self._run, self._stream, self._warm = run, stream, False
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is not None:
            self._graph.replay()
        elif self._warm:
            self._graph = self._captured()
            self._graph.replay()
        else:
            self._run()
            self._warm = True

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Capture it. Other threads may allocate meanwhile, but nothing may be collected here: what
        a collector frees may be a graph.
        """
        graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._run()
        finally:
            if collects:
                gc.enable()
        return graph
