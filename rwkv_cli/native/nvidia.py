"""Which NVIDIA cards there are and how much of their memory is free, asked without torch, and
without a context, which would take a card's memory itself.

The driver counts the cards, in the order that torch has; NVML tells what is free on each.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from typing import Any

from rwkv_cli.native.cuda import driver as cuda

NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"

_CLOCK, _BUS, _PCI_GENERATION = 36, 37, {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.97, 5: 3.94, 6: 7.56}
_REACHED = 0.85  # of a link's rate, by copies from pinned memory


@dataclass(frozen=True, slots=True)
class Nvidia:
    """A card.

    Attributes:
        name: What it is sold as.
        total: Bytes of its memory.
        free: Bytes that nobody uses; None where nothing tells.
        read: Bytes a second that its memory gives on paper; None where nothing tells.
        link: Bytes a second that come from the host's memory; None where nothing tells.
    """

    name: str
    total: int
    free: int | None
    read: float | None
    link: float | None


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


_DRIVER: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
}
_MANAGEMENT: dict[str, tuple[Any, ...]] = {
    "nvmlInit_v2": (),
    "nvmlDeviceGetHandleByPciBusId_v2": (c_char_p, POINTER(c_void_p)),
    "nvmlDeviceGetMemoryInfo": (c_void_p, POINTER(_Memory)),
    "nvmlDeviceGetMaxPcieLinkGeneration": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetMaxPcieLinkWidth": (c_void_p, POINTER(c_uint)),
}


class _FailedError(Exception):
    """A function of a library gave another status than 0, or is not there."""


class _Library:
    """A library of the driver whose functions give a status."""

    def __init__(self, name: str, functions: dict[str, tuple[Any, ...]]) -> None:
        self._library, self._functions = ctypes.CDLL(name), functions

    def call(self, function: str, *arguments: Any) -> None:
        found = getattr(self._library, function, None)
        if found is None:
            raise _FailedError(function)
        found.argtypes, found.restype = self._functions[function], c_int
        if found(*arguments):
            raise _FailedError(function)

    def number(self, function: str, handle: object, kind: Any = c_uint) -> int:
        """Ask for a number that a handle has."""
        value = kind()
        self.call(function, handle, byref(value))
        return int(value.value)


def nvidia_cards() -> list[Nvidia]:
    """List the cards that this process may use, in torch's order; none where there is no driver or
    it does not work. Where there is none this takes a fraction of a millisecond.
    """
    try:
        driver = _Library(cuda.NAME, _DRIVER)
        driver.call("cuInit", 0)
        count = c_int()
        driver.call("cuDeviceGetCount", byref(count))
        management = _management() if count.value else None
        return [_card(driver, management, ordinal) for ordinal in range(count.value)]
    except (OSError, _FailedError):
        return []


def _management() -> _Library | None:
    try:
        library = _Library(NVML, _MANAGEMENT)
        library.call("nvmlInit_v2")
    except (OSError, _FailedError):
        return None
    return library


def _card(driver: _Library, management: _Library | None, ordinal: int) -> Nvidia:
    """Describe a card by its number."""
    handle, total, name = c_int(), c_size_t(), ctypes.create_string_buffer(256)
    driver.call("cuDeviceGet", byref(handle), ordinal)
    driver.call("cuDeviceGetName", name, len(name), handle)
    driver.call("cuDeviceTotalMem_v2", byref(total), handle)
    free = link = None
    if management:
        with suppress(_FailedError):
            free, link = _managed(driver, management, handle)
    title = name.value.decode("utf-8", "replace")
    return Nvidia(title, total.value, free, _read_rate(driver, handle), link)


def _managed(driver: _Library, management: _Library, handle: c_int) -> tuple[int, float | None]:
    """Ask NVML, which numbers cards in its own way, by the place on the bus."""
    bus, theirs, memory = ctypes.create_string_buffer(32), c_void_p(), _Memory()
    driver.call("cuDeviceGetPCIBusId", bus, len(bus), handle)
    management.call("nvmlDeviceGetHandleByPciBusId_v2", bus.value, byref(theirs))
    management.call("nvmlDeviceGetMemoryInfo", theirs, byref(memory))
    with suppress(_FailedError):
        generation = management.number("nvmlDeviceGetMaxPcieLinkGeneration", theirs)
        width = management.number("nvmlDeviceGetMaxPcieLinkWidth", theirs)
        if generation in _PCI_GENERATION and width:
            return memory.free, _PCI_GENERATION[generation] * 1e9 * width * _REACHED
    return memory.free, None


def _read_rate(driver: _Library, handle: c_int) -> float | None:
    """Tell how fast the memory is: two transfers a cycle on every wire of the bus."""
    numbers = []
    for attribute in (_CLOCK, _BUS):  # kHz; bits
        value = c_int()
        with suppress(_FailedError):
            driver.call("cuDeviceGetAttribute", byref(value), attribute, handle)
        numbers.append(value.value)
    clock, bits = numbers
    return 2.0 * clock * 1000 * bits / 8 or None
