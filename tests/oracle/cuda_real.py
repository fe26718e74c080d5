"""The card that tests of the CUDA kernels run on with `--cuda`, in place of the host."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rwkv_cli.engine.cuda.device import CudaDevice, Launch
from rwkv_cli.native.cuda.kernels import Kernels
from rwkv_cli.native.cuda.loading import find

_ALIGNED = 256  # bytes: as memory of CUDA's own is

_chosen: list[Kernels] = []


class NoCardError(Exception):
    """There is no card, or there are no kernels for it; the message says why."""


def use() -> None:
    """Make tests run on the first card."""
    if not torch.cuda.is_available():
        built = torch.version.cuda or "none: this torch is for CPUs"
        raise NoCardError(f"this machine has no card that torch can use (CUDA of torch: {built})")
    torch.cuda.set_device(0)
    torch.zeros(1, device="cuda")  # makes the context, which kernels are loaded into
    found = find(0)
    if found.kernels is None:
        raise NoCardError(f"there are no kernels for {torch.cuda.get_device_name(0)}: {found.why}")
    _chosen[:] = [found.kernels]


def kernels() -> Kernels | None:
    """The kernels on the card; None when tests run on the host."""
    return _chosen[0] if _chosen else None


class Memory:
    """Arrays of the host, copied to the card for a launch.

    An array goes there with all of the memory that it is a part of, so that those which overlap
    here overlap there, and what lies beside it is compared as well.

    Args:
        place: A torch device.
    """

    def __init__(self, place: str = "cuda") -> None:
        self.place = torch.device(place)
        self._copies: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._kept: list[NDArray[Any]] = []

    @property
    def stream(self) -> int:
        """Handle of torch's stream."""
        if self.place.type == "cpu":
            return 0
        return int(torch.cuda.current_stream(self.place).cuda_stream)

    def address(self, array: NDArray[Any]) -> int:
        """Copy an array, unless it is there: where it begins on the card."""
        whole = array
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        begin = whole.ctypes.data
        if begin not in self._copies:
            here = _bytes(begin, whole.nbytes)
            space = torch.empty(whole.nbytes + 2 * _ALIGNED, dtype=torch.uint8, device=self.place)
            start = (begin - space.data_ptr()) % _ALIGNED  # as much aligned as it is here
            there = space[start : start + whole.nbytes]
            there.copy_(here)
            self._copies[begin] = here, there
            self._kept.append(whole)
        here, there = self._copies[begin]
        assert len(here) == whole.nbytes
        return there.data_ptr() + array.ctypes.data - begin

    def fetch(self) -> None:
        """Wait for the card, and copy everything back."""
        for here, there in self._copies.values():
            here.copy_(there)


def _bytes(begin: int, count: int) -> torch.Tensor:
    """See memory of the host as a tensor; whoever owns it must keep it."""
    return torch.frombuffer((ctypes.c_uint8 * count).from_address(begin), dtype=torch.uint8)


class RealCard(CudaDevice):
    """A card that notes what it is asked to launch.

    Args:
        loaded: The kernels.
        broken: A kernel that does nothing, so that its results are whatever was there.
        shared: Bytes of shared memory that a block may have.
    """

    def __init__(self, loaded: Kernels, broken: str | None, shared: int) -> None:
        super().__init__(torch.device("cuda", loaded.device.ordinal), loaded)
        self.broken, self.shared = broken, shared
        self.launched: list[str] = []

    def launch(self, launch: Launch) -> None:
        self.launched.append(launch.name)
        if launch.name != self.broken:
            super().launch(launch)

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        self.launched.append("product")
        super().product(a, b, out)
