"""The card as the measurements see it: devices for a precision, and a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

import torch

from rwkv_cli.engine.cuda.device import CudaDevice, Device
from rwkv_cli.native.cuda.kernels import Kernels
from rwkv_cli.native.cuda.loading import ALL_TYPES, TYPES_OF, find

Run = Callable[[], Any]


class Cards(Protocol):
    """A card to be measured.

    Attributes:
        place: Where its tensors lie.
    """

    place: torch.device

    def open(self, dtype: str, *, programmatic: bool = True) -> Device:
        """Give the card with the kernels that models in a precision get."""

    def time(self, run: Run, seconds: float = 0.3) -> float:
        """Give the seconds of a run on the card: the median over some time."""

    def wait(self) -> None:
        """Wait until the card has done everything."""


class NoCardError(Exception):
    """There is no card, or nothing to run on it."""


@dataclass
class RealCards:
    """The first card of torch's."""

    place: torch.device = field(default_factory=lambda: torch.device("cuda", 0))
    _kernels: dict[int, Kernels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not torch.cuda.is_available():
            raise NoCardError("torch sees no CUDA card")
        torch.cuda.set_device(self.place)
        torch.zeros(1, device=self.place)  # makes the context, which kernels are loaded into

    def kernels(self, types: int = ALL_TYPES) -> Kernels:
        """Give the kernels for some types of weights, compiled where they are not yet."""
        if types not in self._kernels:
            found = find(self.place.index, types)
            if found.kernels is None:
                raise NoCardError(f"no kernels: {found.why}")
            self._kernels[types] = found.kernels
        return self._kernels[types]

    def open(self, dtype: str, *, programmatic: bool = True) -> Device:
        return CudaDevice(self.place, self.kernels(TYPES_OF[dtype]), programmatic=programmatic)

    def time(self, run: Run, seconds: float = 0.3) -> float:
        for _ in range(3):
            run()
        count = max(1, round(0.01 / max(self._seconds(run, 2), 1e-6)))
        end, found = time.monotonic() + seconds, [self._seconds(run, count)]
        while time.monotonic() < end or (len(found) < 5 and time.monotonic() < end + 2):
            found.append(self._seconds(run, count))
        return median(found)

    def wait(self) -> None:
        torch.cuda.synchronize(self.place)

    @staticmethod
    def _seconds(run: Run, count: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000 / count


def well() -> bool:
    """Tell whether the card still answers."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def wall(run: Run, times: int = 3) -> float:
    """Give the seconds of something that waits for the card by itself: the median."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return median(found)
