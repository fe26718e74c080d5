"""A disk that writes down what is done to it, and every disk that a power failure could leave.

After a cut, what was synced is there. What was not may be there, or not, or in part: of a file's
bytes any beginning, or zeros; of a folder's names any subset of the changes since it was synced.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rwkv_cli.store.disk import Disk

SUBSETS = int(os.environ.get("STORE_SUBSETS", "64"))  # of the changes to names, after each step


@dataclass(frozen=True)
class Step:
    """One thing that was done, or said to be done."""

    what: str
    folder: str = ""
    name: str = ""
    file: int = 0
    data: bytes = b""
    other: str = ""
    note: object = None


class Recorder(Disk):
    """Does everything, and writes it down.

    Args:
        root: The disk.
        without: Names of the methods whose calls of fsync are left out.
    """

    def __init__(self, root: Path, without: tuple[str, ...] = ()) -> None:
        self.root, self._without = root, without
        self.steps: list[Step] = []
        self._files: dict[int, int] = {}  # descriptor to file
        self._inodes: dict[str, int] = {}  # path to file
        self._count = 0
        for path in sorted(root.rglob("*")):
            folder, name = self._place(path)
            if path.is_dir():
                self.steps.append(Step("mkdir", folder, name))
            else:
                self._count += 1
                self._inodes[str(path)] = self._count
                self.steps.append(Step("create", folder, name, self._count))
                self.steps.append(Step("write", file=self._count, data=path.read_bytes()))
                self.steps.append(Step("sync", file=self._count))
            self.steps.append(Step("sync_folder", folder))
        self.begun = len(self.steps)

    def announce(self, note: object) -> None:
        """Write down that something was said to be kept."""
        self.steps.append(Step("announce", note=note))

    def _place(self, path: Path) -> tuple[str, str]:
        return str(path.parent.relative_to(self.root)), path.name

    def _left_out(self) -> bool:
        return sys._getframe(2).f_code.co_name in self._without

    def mkdir(self, folder: Path) -> None:
        super().mkdir(folder)
        self.steps.append(Step("mkdir", *self._place(folder)))

    def create(self, path: Path, size: int) -> int:
        handle = super().create(path, size)
        self._count += 1
        self._files[handle] = self._inodes[str(path)] = self._count
        self.steps.append(Step("create", *self._place(path), file=self._count))
        return handle

    def write(self, handle: int, data: memoryview) -> int:
        half = data[: max(1, len(data) // 2)] if len(data) > 600 else data
        done = super().write(handle, half)
        step = Step("write", file=self._files[handle], data=bytes(half[:done]))
        self.steps.append(step)
        return done

    def sync(self, handle: int) -> None:
        if not self._left_out():
            self.steps.append(Step("sync", file=self._files[handle]))

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._inodes[str(target)] = self._inodes[str(source)]
        self.steps.append(Step("link", *self._place(target), file=self._inodes[str(source)]))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        file = self._inodes[str(target)] = self._inodes.pop(str(source))
        other, name = self._place(source)
        self.steps.append(Step("rename", *self._place(target), file=file, other=f"{other}/{name}"))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.steps.append(Step("unlink", *self._place(path)))

    def sync_folder(self, folder: Path) -> None:
        if not self._left_out():
            self.steps.append(Step("sync_folder", str(folder.relative_to(self.root))))


@dataclass
class _File:
    durable: bytes = b""
    written: bytes = b""

    def versions(self) -> list[bytes]:
        """List what the bytes may be after a cut."""
        if self.durable == self.written:
            return [self.durable]
        if not self.written.startswith(self.durable):  # something was cut off
            return [self.durable, self.written]
        whole, kept = self.written, len(self.durable)
        cuts = {0, 1, 512, *range(4096, len(whole), 4096)}
        found = [whole, whole[:kept], whole[:kept] + bytes(len(whole) - kept)]
        found += [whole[:cut] for cut in sorted(cuts) if kept <= cut < len(whole)]
        return list(dict.fromkeys(found))


@dataclass
class _Model:
    """What is durable, and what has happened since."""

    files: dict[int, _File] = field(default_factory=dict)
    names: dict[str, dict[str, int]] = field(default_factory=lambda: {".": {}})  # 0 is a folder
    changes: list[tuple[str, Step]] = field(default_factory=list)

    def take(self, step: Step) -> None:
        if step.what == "create":
            self.files[step.file] = _File()
        elif step.what == "write":
            self.files[step.file].written += step.data
        elif step.what == "cut":
            self.files[step.file].written = step.data
        elif step.what == "sync":
            self.files[step.file].durable = self.files[step.file].written
        elif step.what == "sync_folder":
            for _, change in [c for c in self.changes if c[0] == step.folder]:
                _apply(self.names, change)
            self.changes = [c for c in self.changes if c[0] != step.folder]
        if step.what in ("create", "mkdir", "link", "rename", "unlink"):
            self.changes.append((step.folder, step))

    def trees(self, dice: random.Random) -> Iterator[dict[str, bytes | None]]:
        """Give every disk there may be: path to bytes, None for a folder."""
        count = len(self.changes)
        chosen: Iterator[tuple[bool, ...]] = itertools.product((True, False), repeat=count)
        if 2**count > SUBSETS:
            rows = [tuple(dice.random() < 0.5 for _ in range(count)) for _ in range(SUBSETS - 2)]
            chosen = iter([(True,) * count, (False,) * count, *rows])
        for keep in chosen:
            names = {folder: dict(entries) for folder, entries in self.names.items()}
            for (_, change), kept in zip(self.changes, keep, strict=True):
                if kept:
                    _apply(names, change)
            yield from self._contents(names)

    def _contents(self, names: dict[str, dict[str, int]]) -> Iterator[dict[str, bytes | None]]:
        there = dict(_reachable(names))
        uncertain = sorted({f for f in there.values() if f and len(self.files[f].versions()) > 1})
        for versions in itertools.product(*(self.files[f].versions() for f in uncertain)):
            content = dict(zip(uncertain, versions, strict=True))
            yield {
                path: content.get(file, self.files[file].durable) if file else None
                for path, file in there.items()
            }


def _apply(names: dict[str, dict[str, int]], step: Step) -> None:
    here = names.setdefault(step.folder, {})
    if step.what == "unlink":
        here.pop(step.name, None)
        return
    here[step.name] = step.file
    if step.what == "mkdir":
        names.setdefault(os.path.normpath(f"{step.folder}/{step.name}"), {})
    if step.what == "rename":
        folder, name = step.other.rsplit("/", 1)
        names.get(folder, {}).pop(name, None)


def _reachable(names: dict[str, dict[str, int]], folder: str = ".") -> Iterator[tuple[str, int]]:
    for name, file in names.get(folder, {}).items():
        path = os.path.normpath(f"{folder}/{name}")
        yield path, file
        if not file:
            yield from _reachable(names, path)


def disks(
    recorder: Recorder, dice: random.Random
) -> Iterator[tuple[list[object], dict[str, bytes | None]]]:
    """Give every disk after every step, each once, with what had been announced by then."""
    model, announced = _Model(), []
    seen: set[tuple[int, int]] = set()
    for index, step in enumerate(recorder.steps):
        if step.what == "announce":
            announced.append(step.note)
            continue
        model.take(step)
        if index < recorder.begun - 1:
            continue
        for tree in model.trees(dice):
            key = (len(announced), hash(frozenset(tree.items())))
            if key not in seen:
                seen.add(key)
                yield list(announced), tree


def lay_out(tree: dict[str, bytes | None], root: Path) -> None:
    """Make a disk."""
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)


Check = Callable[[Path, list[object]], str | None]


def first_loss(recorder: Recorder, scratch: Path, check: Check) -> tuple[int, str | None]:
    """Check every disk: how many there were, and what was lost first, if anything."""
    import shutil

    count = 0
    for announced, tree in disks(recorder, random.Random(7)):
        root = scratch / str(count)
        root.mkdir()
        lay_out(tree, root)
        count += 1
        lost = check(root, announced)
        shutil.rmtree(root)
        if lost:
            return count, lost
    return count, None
