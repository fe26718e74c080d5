"""How much memory the host has, and how much of it is free."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

USUAL_SHARE = 0.9  # of a memory of which only the size is known, what may be taken for free

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def total_memory() -> int | None:
    """Give the bytes of memory; None where the system does not tell."""
    if sys.platform == "win32":
        return _windows(1)
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def free_memory() -> int | None:
    """Give the bytes that can be had without pushing others out, within the limit of this group of
    processes; None where nothing tells.
    """
    with suppress(OSError, ValueError, IndexError):
        for line in _MEMINFO.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, *_group_rooms(), sys.maxsize)
    if sys.platform == "win32":
        return _windows(2)
    total = total_memory()  # macOS gives back most of what is in use
    return None if total is None else int(total * USUAL_SHARE)


def _group_rooms() -> Sequence[int]:
    """Give what a control group leaves, where there is one with a limit: files that it has read can
    be dropped, what its processes wrote cannot.
    """
    try:
        limit = int((_GROUP / "memory.max").read_text(encoding="ascii"))
        rows = (_GROUP / "memory.stat").read_text(encoding="ascii").split()
        return (max(0, limit - int(rows[rows.index("anon") + 1])),)
    except (OSError, ValueError, IndexError):  # no limit is written as "max"
        return ()


def _windows(place: int) -> int | None:
    """Ask GlobalMemoryStatusEx, whose answer is 64-bit numbers after two of 32: at place 1 the
    total, at place 2 what is free.
    """
    status = (ctypes.c_uint64 * 8)()
    status[0] = ctypes.sizeof(status)
    windows = getattr(ctypes, "windll", None)
    if windows is None or not windows.kernel32.GlobalMemoryStatusEx(status):
        return None
    return int(status[place])
