"""How many threads a computation should have on this machine."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_GROUPS = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """Count the physical cores this process may use: those it is not kept away from, and no more
    than its group of processes is given time on.

    Two threads on one core share its arithmetic and its caches, so the second brings nothing.
    """
    quota = _cpu_quota()
    cores = _allowed_cores()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def physical_cores() -> int:
    """Count the physical cores of the machine, where the system tells; else its processors."""
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or _processors()
    return _distinct_cores(range(_processors()))


def _processors() -> int:
    return os.cpu_count() or 1


def _allowed_cores() -> int:
    """Count the physical cores among the processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return _distinct_cores(os.sched_getaffinity(0))
    return physical_cores()


def _distinct_cores(processors: Iterable[int], cpus: Path = _CPUS) -> int:
    """Count the cores that processors belong to; where nothing is known, each is one."""
    cores = set()
    for number in processors:
        file = cpus / f"cpu{number}" / "topology" / "thread_siblings_list"
        try:
            cores.add(file.read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            cores.add(f"processor {number}")
    return len(cores)


def _cpu_quota(own: Path = Path("/proc/self/cgroup"), groups: Path = _GROUPS) -> float | None:
    """Give the processors' worth of time that control groups allow; None without a limit."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            quotas += _quotas_above(groups, path, _second_version)
        elif "cpu" in controllers.split(","):
            quotas += _quotas_above(groups / "cpu", path, _first_version)
    return min(quotas, default=None)


def _quotas_above(root: Path, path: str, read: Callable[[Path], float]) -> list[float]:
    """Collect the limits of a group and of those it is in."""
    found = []
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota = read(folder)
            if quota > 0:
                found.append(quota)
        if folder == root:
            break
    return found


def _second_version(group: Path) -> float:
    """Read cpu.max: the microseconds, or "max", of a period."""
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    return int(quota) / int(period)


def _first_version(group: Path) -> float:
    """Read the two files of the older control groups; -1 is no limit."""
    quota, period = (
        int((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii"))
        for name in ("quota", "period")
    )
    return quota / period


def _sysctl(name: str) -> int:
    """Read a number that macOS tells; 0 where it does not."""
    value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    read = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    if read is None or read(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0) != 0:
        return 0
    return value.value
