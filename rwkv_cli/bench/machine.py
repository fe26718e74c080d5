"""The machine a measurement was made on, and who else used it meanwhile."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwkv_cli.native.hostmemory import total_memory
from rwkv_cli.native.machine import default_threads, physical_cores

_STAT = Path("/proc/stat")
_CPUINFO = Path("/proc/cpuinfo")
_CROWD = 0.15  # cores' worth of other programs' work that a measurement feels
_PAUSE = 0.5  # seconds of listening before anything is measured


def describe_machine() -> dict[str, Any]:
    """Tell what the machine is."""
    return {
        "cpu": cpu_name(),
        "cores": physical_cores(),
        "processors": os.cpu_count(),
        "usable_cores": default_threads(),
        "memory_bytes": total_memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def cpu_name(file: Path = _CPUINFO) -> str:
    """Give the processor's name as it tells it itself, or at least its family."""
    with suppress(OSError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model") and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown"


@dataclass(frozen=True, slots=True)
class Busy:
    """How much other programs did.

    Attributes:
        before: Cores' worth of work before the measurements; None where the system does not tell.
        during: The same while they ran.
        load: Load average of the last minute, before.
    """

    before: float | None
    during: float | None
    load: float | None

    def warning(self) -> str | None:
        """Say that the figures are not to be trusted; None when all is quiet."""
        worst = max(self.before or 0.0, self.during or 0.0)
        cores = os.cpu_count() or 1
        if worst > _CROWD:
            when = "while this ran" if worst == self.during else "before this ran"
            return f"other programs used {worst:.1f} of {cores} processors {when}: figures are off"
        if self.before is None and (self.load or 0.0) > cores / 2:
            return f"the load was {self.load:.1f} before this ran: figures may be off"
        return None

    def to_json(self) -> dict[str, Any]:
        """Write it."""
        return {
            "others_before": self.before,
            "others_during": self.during,
            "load_before": self.load,
            "warning": self.warning(),
        }


class Watch:
    """Counts what other programs do on this machine from now on."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._restart()
        time.sleep(_PAUSE)
        self._before = self._others()
        self._restart()

    def so_far(self) -> Busy:
        """Tell how busy it was before, and has been since."""
        return Busy(self._before, self._others(), self._load)

    def _restart(self) -> None:
        self._began = time.monotonic()
        self._all, self._own = _busy_seconds(self._stat), _own_seconds()

    def _others(self) -> float | None:
        """Give the cores' worth of work of everyone else since the start of the count."""
        now = _busy_seconds(self._stat)
        if now is None or self._all is None:
            return None
        own = _own_seconds() - self._own
        return max(0.0, (now - self._all - own) / (time.monotonic() - self._began))


def _busy_seconds(stat: Path) -> float | None:
    """Count the seconds of work of all processors since the system began; on a virtual machine
    those that its host took away as well.
    """
    with suppress(OSError, ValueError, AttributeError):
        user, nice, system, _, _, irq, soft, steal = map(
            int, stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        )
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return None


def _own_seconds() -> float:
    """Count the seconds of work of this process and those it started."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
