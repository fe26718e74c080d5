"""Bytes of an input, block by block: a file, a pipe, whatever a descriptor leads to."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Iterator
from pathlib import Path

from rwkv_cli.errors import NotFoundError, RefusedError, StorageError
from rwkv_cli.files import reason

BLOCK = 1 << 18
_PATIENCE = 0.2  # seconds between two looks at whether a pipe is still waited for


class Blocks:
    """Gives the bytes of an input; iterate over it once.

    Args:
        where: A path, or a descriptor, which stays open.

    Attributes:
        name: What people call it.
        regular: Whether it is a file on a disk, whose bytes can be read more than once.
        interrupted: Whether it ends before its end.
        size: Bytes after which it ends, whatever was added since they were counted; None for all.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is a folder.
        StorageError: It cannot be opened.
    """

    def __init__(self, where: Path | int) -> None:
        self.name = "the input" if isinstance(where, int) else str(where)
        self._own = not isinstance(where, int)
        self._descriptor = where if isinstance(where, int) else _opened(where)
        self.interrupted = False
        try:
            mode = os.fstat(self._descriptor).st_mode
        except OSError as error:
            raise StorageError(f"cannot read {self.name}: {reason(error)}") from error
        if stat.S_ISDIR(mode):
            self.close()
            raise RefusedError(f"{self.name} is a folder")
        self.regular = stat.S_ISREG(mode)
        self._start = os.lseek(self._descriptor, 0, os.SEEK_CUR) if self.regular else 0
        self._given, self.size = 0, None

    size: int | None

    def __iter__(self) -> Iterator[bytes]:
        """Read on to the end, or to an interrupt.

        Raises:
            StorageError: It cannot be read.
        """
        while (self.regular or self._ready()) and (block := self._read()):
            if self.size is not None:
                block = block[: max(0, self.size - self._given)]
            if not block:
                return
            self._given += len(block)
            yield block

    def again(self) -> Iterator[bytes]:
        """Read a regular file from where it began, and leave its place as it is."""
        here = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        os.lseek(self._descriptor, self._start, os.SEEK_SET)
        try:
            while block := self._read():
                yield block
        finally:
            os.lseek(self._descriptor, here, os.SEEK_SET)

    def interrupt(self) -> None:
        """Wait no longer for what a pipe may bring; safe to call from a signal handler."""
        self.interrupted = True

    def close(self) -> None:
        """Let go of a file that was opened here."""
        if self._own:
            self._own = False
            os.close(self._descriptor)

    def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._descriptor, BLOCK)
            except BlockingIOError:  # shared with a program that made it non-blocking
                if not self._ready():
                    return b""
            except OSError as error:
                raise StorageError(f"cannot read {self.name}: {reason(error)}") from error

    def _ready(self) -> bool:
        """Wait until there is something to read; false after an interrupt."""
        while not self.interrupted:
            try:
                if select.select([self._descriptor], [], [], _PATIENCE)[0]:
                    return True
            except (OSError, ValueError):  # not everything can be waited for: reading tells more
                return True
        return False


def _opened(path: Path) -> int:
    """Open a file for reading."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            raise NotFoundError(f"no such file: {path}") from error
        if path.is_dir():  # Windows opens no folder
            raise RefusedError(f"{path} is a folder") from error
        raise StorageError(f"cannot read {path}: {reason(error)}") from error
