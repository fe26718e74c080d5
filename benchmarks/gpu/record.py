"""What a part of the GPU script has found so far, in a file that is never behind."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Values = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Unit:
    """A piece of a part's work that can fail by itself.

    Attributes:
        name: What the record calls it.
        work: Gives names and values, one after the other.
        least: Seconds without which it is not begun.
    """

    name: str
    work: Callable[[], Values]
    least: float = 1.0


class Deadline:
    """A moment by which everything is to be done.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Give the seconds until then; negative after it."""
        return self._end - time.monotonic()


class Record:
    """The file of a part.

    Args:
        path: Where it lies; what it holds already is gone on with.

    Attributes:
        values: Unit to name to value.
        failed: Unit to the reason.
        left_out: Unit to the reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self._begun: str | None = None
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            for name in ("values", "failed", "left_out", "seconds"):
                getattr(self, name).update(known[name])
            if known["begun"]:
                self.failed.setdefault(known["begun"], "the process ended in the middle of it")
            self.write()

    def write(self) -> None:
        """Write the file."""
        names = ("values", "failed", "left_out", "seconds")
        content = {name: getattr(self, name) for name in names} | {"begun": self._begun}
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
        temporary.replace(self.path)

    def run(self, unit: Unit, deadline: Deadline) -> bool:
        """Do a unit, unless that was tried before; tells whether all is well."""
        if unit.name in self.seconds or unit.name in self.failed:
            return True
        if deadline.left() < unit.least:
            self.left_out[unit.name] = "there was no time for it"
            self.write()
            return True
        self.left_out.pop(unit.name, None)
        self._begun, begin = unit.name, time.monotonic()
        self.write()
        try:
            self._collect(unit, deadline)
        except Exception as error:  # whatever it is, the others are not to suffer
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(str(error).split())[:600]
            self.failed[unit.name] = (
                f"{type(error).__name__}: {said} ({Path(where.filename).name}:{where.lineno})"
            )
        self._begun = None
        self.seconds[unit.name] = round(time.monotonic() - begin, 2)
        self.write()
        return unit.name not in self.failed

    def _collect(self, unit: Unit, deadline: Deadline) -> None:
        found = self.values.setdefault(unit.name, {})
        for name, value in unit.work():
            found[name] = value
            self.write()
            if deadline.left() < 0:
                self.left_out[unit.name] = f"there was no time after {name}"
                return


def run_all(
    units: Sequence[Unit], record: Record, deadline: Deadline, well: Callable[[], bool]
) -> bool:
    """Do one unit after another.

    Args:
        units: In the order of what is wanted most.
        record: Where results go.
        deadline: For all together.
        well: Tells whether the card still answers, asked after a failure.

    Returns:
        Whether it does; the units that were not tried need a new process where it does not.
    """
    return all(record.run(unit, deadline) or well() for unit in units)
