"""How much room states may take on the disk, and which of them go first.

Only states go: what they are made of, the text and the tokens of the turns, stays. So what is
evicted costs time, and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.store.disk import TEMPORARY, Disk

MOST = 4_000_000_000  # bytes of states, unless the disk is nearly full
SHARE = 0.05  # of what is free there
SLACK = 0.1  # of the limit that is made free at once, so that not every state has to look again

_STATE = ".rwkvstate"

# What goes first: prompts that can be read again, states inside of conversations, their last ones.
PREFIX, INNER, LATEST = range(3)


@dataclass(frozen=True, slots=True)
class Held:
    """A state on the disk that may go.

    Attributes:
        kind: PREFIX, INNER or LATEST.
        used: When it was last used, in nanoseconds; only the order of going depends on it.
        path: The file.
        nbytes: Its size.
    """

    kind: int
    used: int
    path: Path
    nbytes: int

    @property
    def order(self) -> tuple[int, int]:
        """The lowest goes first."""
        return self.kind, self.used


class Budget:
    """Keeps the states of all conversations and prompts within a limit.

    To look at all conversations takes long when there are thousands. So it is done now and then:
    what was seen to be free may half be filled before the next look. Other programs may fill it
    too; the limit is one that is kept in the long run.

    Args:
        chats: Folder of the conversations.
        prefix: Folder of the prompts; None when there is none.
        limit: Bytes; None is 4 GB, or 5 % of what is free if that is less.
        disk: How the disk is touched.
    """

    def __init__(
        self,
        chats: Path,
        prefix: Path | None = None,
        *,
        limit: int | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._chats, self._prefix, self._limit = chats, prefix, limit
        self._disk = disk or Disk()
        self._free = -1  # bytes that may be written before the next look; -1 before the first

    def limit(self) -> int:
        """Bytes that states may take now."""
        folders = [self._chats, *([self._prefix] if self._prefix else [])]
        return min(map(self._room_of, folders))

    def held(self) -> list[Held]:
        """List the states that may go, those first that go first."""
        found = self.prefixes()
        for folder in self._folders(self._chats):
            if len(folder.name) == 8:
                found += self._of_chat(folder)
        return sorted(found, key=lambda one: one.order)

    def prefixes(self) -> list[Held]:
        """List the states of prompts, those last that were used last."""
        return sorted(self._prefixes(), key=lambda one: one.order)

    def plan(self, coming: int = 0, keep: Path | None = None) -> list[Held] | None:
        """Choose what has to go for some bytes to come; None when even all of it is too little."""
        return _choose(self.held(), coming - self.limit(), keep)

    def make_room(self, coming: int = 0, keep: Path | None = None) -> bool:
        """Make room for some bytes.

        Args:
            coming: How many.
            keep: Where they go; the latest state there stays until they are written.

        Returns:
            False when there can be none.
        """
        if 0 < coming <= self._free:
            self._free -= coming
            return True
        limit = self.limit()
        if coming > limit:
            return False
        rows, over = self.held(), coming - limit
        going = _choose(rows, over, keep)
        if going and coming:
            going = _choose(rows, over + int(SLACK * limit), keep) or going
        if going is None:
            return False
        for row in going:
            self._disk.discard(row.path)
        left = sum(row.nbytes for row in rows) - sum(row.nbytes for row in going)
        self._free = max(0, limit - coming - left) // 2
        return True

    def _room_of(self, folder: Path) -> int:
        if self._limit is not None:
            return self._limit
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        return min(MOST, int(SHARE * shutil.disk_usage(folder).free))

    def _prefixes(self) -> Iterator[Held]:
        for folder in self._folders(self._prefix) if self._prefix else ():
            for path, status in _states(folder):
                yield Held(PREFIX, status.st_mtime_ns, path, status.st_size)

    def _of_chat(self, folder: Path) -> Iterator[Held]:
        rows = sorted(
            (path.name, path, status)
            for path, status in _states(folder)
            if path.name[:1].isdecimal()
        )
        for name, path, status in rows:
            latest = name[:8] == rows[-1][0][:8]
            yield Held(LATEST if latest else INNER, status.st_mtime_ns, path, status.st_size)

    @staticmethod
    def _folders(parent: Path) -> list[Path]:
        try:
            with os.scandir(parent) as entries:
                return [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:  # not there yet
            return []


def _choose(rows: list[Held], over: int, keep: Path | None) -> list[Held] | None:
    """Choose what goes.

    Args:
        rows: What there is, in the order of going.
        over: Bytes beyond all of it that there is no room for.
        keep: A file beside which the latest state stays.
    """
    over += sum(row.nbytes for row in rows)
    going = []
    for row in rows:
        if over <= 0:
            break
        if keep is None or row.path.parent != keep.parent or row.kind != LATEST:
            going.append(row)
            over -= row.nbytes
    return going if over <= 0 else None


def _states(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Give the states in a folder that are finished."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.endswith(_STATE) or entry.name.startswith(TEMPORARY):
                    continue
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
    except OSError:  # taken away meanwhile
        return
