"""How models fit this machine: what is free, and what a model needs."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.hub.catalogue import Entry

_BESIDES = 400 << 20  # bytes that the program and the states take
_INT8, _INT4 = 0.54, 0.30  # of 16-bit weights, scales included; what stays in 16 bits is counted
_SWIFT = 7e9  # bytes of weights that a processor still reads several times a second
_MEMINFO = Path("/proc/meminfo")
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What is free.

    Attributes:
        memory: Bytes of memory that programs can have; None where the system does not tell.
        disk: Bytes on the disk of the models folder.
    """

    memory: int | None
    disk: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model fits.

    Attributes:
        how: "fits"; "int8" or "int4" when it fits so; "memory" or "disk" when that is too small;
            "unknown" when its size is not known.
        recommended: Whether it is the one to take.
    """

    how: str
    recommended: bool = False

    @property
    def runs(self) -> bool:
        """Whether it can be used here in some precision."""
        return self.how in ("fits", "int8", "int4")


def this_machine(folder: Path) -> Machine:
    """Look at this machine."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        disk = shutil.disk_usage(folder).free
    except OSError:
        disk = 0
    return Machine(_memory(), disk)


def fit(entry: Entry, machine: Machine) -> Fit:
    """Tell how a model fits."""
    size = entry.bytes
    if not size:
        return Fit("unknown")
    if size > machine.disk:
        return Fit("disk")
    room = None if machine.memory is None else machine.memory - _BESIDES
    if room is None or size <= room:
        return Fit("fits")
    if entry.format != "gguf":
        for how, share in (("int8", _INT8), ("int4", _INT4)):
            if size * share <= room:
                return Fit(how)
    return Fit("memory")


def fitted(entries: Sequence[Entry], machine: Machine) -> list[tuple[Entry, Fit]]:
    """Sort models by how they fit: the newest ones that run here first, the largest of them first;
    exactly one is recommended, if any runs.
    """
    rows = [(entry, fit(entry, machine)) for entry in entries]
    best = max(
        (row for row in rows if row[0].newest and row[1].how == "fits" and row[0].bytes <= _SWIFT),
        key=lambda row: row[0].bytes,
        default=next((row for row in rows if row[1].runs), None),
    )

    def order(row: tuple[Entry, Fit]) -> tuple[bool, bool, bool, int]:
        entry, how = row
        return (
            not how.runs,
            not entry.newest,
            how.how != "fits",
            -entry.bytes if entry.newest else 0,
        )

    return [
        (entry, Fit(how.how, recommended=best is not None and entry is best[0]))
        for entry, how in sorted(rows, key=order)
    ]


def _memory() -> int | None:
    """Give the bytes of memory that are free, within the limits of this group of processes."""
    free = _free()
    for limit in _LIMITS:
        with suppress(OSError, ValueError):
            text = limit.read_text(encoding="ascii").strip()
            if text != "max":
                free = int(text) if free is None else min(free, int(text))
    return free


def _free() -> int | None:
    with suppress(OSError, ValueError):
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _free_windows()
    with suppress(AttributeError, OSError, ValueError):  # macOS gives back most of what is in use
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
    return None


def _free_windows() -> int | None:
    """Ask GlobalMemoryStatusEx, whose answer holds eight 64-bit numbers after two of 32."""
    status = (ctypes.c_uint64 * 8)()
    status[0] = ctypes.sizeof(status)
    windows = getattr(ctypes, "windll", None)
    if windows is None or not windows.kernel32.GlobalMemoryStatusEx(status):
        return None
    return int(status[2])
