"""A file that is not yet whole, and a journal of which of its bytes are durable.

The journal tells only of bytes that were flushed before it was written, and it replaces its
predecessor as a whole. So after a crash or a power failure at any moment what it tells of is there;
everything else counts as missing.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from rwkv_cli.errors import StorageError
from rwkv_cli.files import reason, sync_folder, write_atomic
from rwkv_cli.hub.ranges import Range, Ranges

_FORMAT = 1
_SPARE = 64 << 20  # bytes that a disk keeps free for everything else
_LARGEST_JOURNAL = 1 << 20
_NOT_AHEAD = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}  # cannot reserve room, but can write


class Part:
    """The file while it comes.

    Args:
        path: Where it lies; the journal is beside it.
        identity: What it is a part of: a journal of something else counts for nothing.

    Attributes:
        ranges: What is there.
        size: Bytes of the whole; None when nobody knows.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path, self.identity = path, identity
        self.journal = path.with_name(path.name + ".journal")
        self.size: int | None = None
        self.ranges = Ranges()
        self.other = False  # whether there was a part of something else
        self._lock, self._handle = threading.Lock(), -1
        self._abandoned, self._doubtful = False, False

    def open(self, size: int | None) -> None:
        """Take up what is there, and find room for the rest.

        Raises:
            StorageError: The disk is full, or refuses.
        """
        self.size = size
        known, self.other = _durable(self.journal, self.identity)
        flags = os.O_RDWR | os.O_CREAT
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"):
            flags |= getattr(os, name, 0)
        try:
            if known is None or size is None:
                self.journal.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
                known = []
            self._handle = os.open(self.path, flags, 0o644)
            status = os.fstat(self._handle)
            there = min(status.st_size, size or 0)
            self.ranges = Ranges((b, min(e, there)) for b, e in known)
            held = getattr(status, "st_blocks", 0) * 512
            require_room(self.path.parent, max(0, (size or 0) - held))
            self._reserve(size or 0)
        except StorageError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._failure(error) from error

    def _reserve(self, size: int) -> None:
        """Take the room now, so that the disk cannot be full later."""
        if size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._handle, 0, size)
            except OSError as error:
                if error.errno not in _NOT_AHEAD:
                    raise
                os.ftruncate(self._handle, size)
        elif size:
            os.ftruncate(self._handle, size)

    def write(self, at: int, data: bytes) -> None:
        """Put bytes into their place; any thread may.

        Raises:
            StorageError: The disk refused.
        """
        view, begin = memoryview(data), at
        try:
            while view:
                count = self._put(view, at)
                view, at = view[count:], at + count
        except OSError as error:
            raise self._failure(error) from error
        with self._lock:
            self.ranges.add(begin, at)

    def _put(self, view: memoryview, at: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._handle, view, at)
        with self._lock:  # Windows
            os.lseek(self._handle, at, os.SEEK_SET)
            return os.write(self._handle, view)

    def read(self, at: int, amount: int) -> bytes:
        """Read bytes back."""
        if hasattr(os, "pread"):
            return os.pread(self._handle, amount, at)
        with self._lock:  # Windows
            os.lseek(self._handle, at, os.SEEK_SET)
            return os.read(self._handle, amount)

    @property
    def done(self) -> int:
        """How many bytes are there."""
        with self._lock:
            return self.ranges.total

    @property
    def front(self) -> int:
        """How many are there from the beginning on."""
        with self._lock:
            return self.ranges.front

    def gaps(self) -> list[Range]:
        """List what is missing."""
        with self._lock:
            return self.ranges.gaps(self.size or 0)

    def reset(self) -> None:
        """Forget everything that is there."""
        self.journal.unlink(missing_ok=True)
        with self._lock:
            self.ranges = Ranges()

    def save(self) -> None:
        """Make what is there durable, then write down that it is.

        A flush that failed is not tried again: the system may have dropped the bytes and forgotten.

        Raises:
            StorageError: The disk refused.
        """
        if self._doubtful:
            raise StorageError(f"cannot flush {self.path}")
        with self._lock:
            done = self.ranges.to_list()
        record = {"format": _FORMAT, "size": self.size, "done": done, **self.identity}
        try:
            getattr(os, "fdatasync", os.fsync)(self._handle)
        except OSError as error:
            self._doubtful = True
            raise self._failure(error) from error
        write_atomic(self.journal, [json.dumps(record).encode()])

    def publish(self, target: Path) -> None:
        """Give the whole file its name, durably.

        Raises:
            StorageError: The disk refused.
        """
        try:
            if self.size is None:
                os.ftruncate(self._handle, self.front)
            os.fsync(self._handle)
            self.close()
            self.path.replace(target)
            sync_folder(target.parent)
            self.journal.unlink(missing_ok=True)
            self._sweep()
        except OSError as error:
            raise StorageError(f"cannot write {target}: {reason(error)}") from error

    def _sweep(self) -> None:
        """Delete journals that killed processes were writing; whoever calls this is alone here."""
        for path in self.path.parent.glob(f".{glob.escape(self.journal.name)}.*.tmp"):
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Take it away, since it is not what it should be."""
        self.close()
        with contextlib.suppress(OSError):
            self.journal.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Never close the file: a thread that does not end may still write to it, and must not
        reach another file that got its number.
        """
        self._abandoned = True

    def close(self) -> None:
        """Let go of the file."""
        if self._handle >= 0 and not self._abandoned:
            os.close(self._handle)
            self._handle = -1

    def _failure(self, error: OSError) -> StorageError:
        if error.errno == errno.ENOSPC:
            return StorageError(
                f"the disk of {self.path.parent} is full",
                hint="make room and run the same command again: what has come is kept",
            )
        return StorageError(f"cannot write {self.path}: {reason(error)}")


def require_room(folder: Path, size: int) -> None:
    """Make sure that a disk has room.

    Raises:
        StorageError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if size > max(0, free - _SPARE):
        from rwkv_cli.engine.estimate import amount

        kept = f", of which {amount(_SPARE)} are to stay so" if size <= free else ""
        raise StorageError(
            f"this needs {amount(size)}, and {amount(free)} are free in {folder}{kept}",
            hint="set RWKV_MODELS_DIR to a folder on a larger disk, or make room",
        )


def progress_of(journal: Path) -> tuple[int, int | None]:
    """Tell how far a part is that another process works on: bytes done and in all."""
    record = _record(journal)
    if record is None:
        return 0, None
    size = record.get("size")
    return Ranges(_pairs(record)).total, size if isinstance(size, int) else None


def _durable(journal: Path, identity: dict[str, Any]) -> tuple[list[Range] | None, bool]:
    """Read what is durable; None when that is nothing, and whether it was of something else."""
    record = _record(journal)
    if record is None:
        return None, False
    if any(record.get(key) != value for key, value in identity.items()):
        return None, True
    return _pairs(record), False


def _record(journal: Path) -> dict[str, Any] | None:
    try:
        if journal.stat().st_size > _LARGEST_JOURNAL:
            return None
        record = json.loads(journal.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.get("format") == _FORMAT else None


def _pairs(record: dict[str, Any]) -> list[Range]:
    done = record.get("done")
    rows = done if isinstance(done, list) else []
    return [
        (row[0], row[1])
        for row in rows
        if isinstance(row, list) and len(row) == 2 and all(type(n) is int for n in row)
        if 0 <= row[0] < row[1]
    ]
