"""Writes down what is done to the files of a folder, for the enumerator of power failures: what
`store.power.Recorder` does for the store, at the calls of the system instead.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from store.power import Step


class Watched:
    """A folder whose changes are written down until the end of the test.

    Args:
        root: The folder; it may have files.
        patch: Puts the watching functions in place.
        without: Which calls of fsync are left out: the function that makes them, and after a colon
            whether it is of a "file" or a "folder".
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, without: str = "") -> None:
        self.root, self._without = root, without
        self.steps: list[Step] = []
        self._files: dict[int, int] = {}  # descriptor to file
        self._numbers: dict[str, int] = {}  # name to file
        self._written: dict[int, int] = {}  # bytes of a file that were written down
        self._count = 0
        for path in sorted(root.iterdir()):
            number = self._created(path.name)
            self._grown(number, path.read_bytes())
            self.steps += [Step("sync", file=number), Step("sync_folder", ".")]
        self.begun = len(self.steps)
        self._real = {
            name: getattr(os, name)
            for name in ("open", "write", "ftruncate", "fsync", "replace", "unlink")
        }
        for name in self._real:
            patch.setattr(os, name, getattr(self, name))

    def announce(self, note: object) -> None:
        """Write down that something was said to be kept."""
        self.steps += [Step("announce", note=note), Step("nothing")]  # disks are looked at after it

    def _ours(self, path: Any) -> bool:
        return Path(path).parent == self.root and not str(path).endswith(".lock")

    def _created(self, name: str) -> int:
        self._count += 1
        self._numbers[name], self._written[self._count] = self._count, 0
        self.steps.append(Step("create", ".", name, self._count))
        return self._count

    def _grown(self, number: int, data: bytes) -> None:
        if data:
            self._written[number] += len(data)
            self.steps.append(Step("write", file=number, data=data))

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        new = self._ours(path) and not os.path.lexists(path)
        handle: int = self._real["open"](path, flags, mode)
        if self._ours(path):
            name = Path(path).name
            self._files[handle] = self._created(name) if new else self._numbers[name]
        return handle

    def write(self, handle: int, data: Any) -> int:
        if handle not in self._files:
            return int(self._real["write"](handle, data))
        half = bytes(data[: len(data) // 2 + 1])  # a disk may take less than it is given
        self._real["write"](handle, half)
        self._grown(self._files[handle], half)
        return len(half)

    def ftruncate(self, handle: int, size: int) -> None:
        self._real["ftruncate"](handle, size)
        number = self._files[handle]
        self._written[number] = size
        (name,) = (name for name, file in self._numbers.items() if file == number)
        self.steps.append(Step("cut", file=number, data=(self.root / name).read_bytes()))

    def fsync(self, handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        if _caller(sys._getframe(1)) + (":folder" if folder else ":file") == self._without:
            return
        if folder:
            self.steps.append(Step("sync_folder", "."))
            return
        number = self._files[handle]
        (name,) = (name for name, file in self._numbers.items() if file == number)
        self._grown(number, (self.root / name).read_bytes()[self._written[number] :])
        self.steps.append(Step("sync", file=number))

    def replace(self, source: Any, target: Any) -> None:
        self._real["replace"](source, target)
        new, old = Path(target).name, Path(source).name
        self._numbers[new] = number = self._numbers.pop(old)
        left = (self.root / new).read_bytes()[self._written[number] :]
        self._grown(number, left)  # where it was not synced before
        self.steps.append(Step("rename", ".", new, number, other=f"./{old}"))

    def unlink(self, path: Any, **how: Any) -> None:
        self._real["unlink"](path, **how)
        if self._ours(path):
            self._numbers.pop(Path(path).name)
            self.steps.append(Step("unlink", ".", Path(path).name))


def _caller(frame: FrameType) -> str:
    """Name the function that wants a sync."""
    if frame.f_code.co_name == "sync_folder" and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name
