"""One file of lines that only grows, and is put in order at the end.

A crash can leave less than was written, but never something else in its place: what was synced is
there, and of what came after it some beginning, or zeros. So whole lines are kept, and from the
first one that is torn or holds a NUL on, all of it is cut off; those rows are not done.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from rwkv_cli.errors import RefusedError, StorageError, UsageError
from rwkv_cli.files import reason, replacing, sync_folder

_BLOCK = 1 << 20  # bytes that are read at once

Piece = tuple[int, int]  # where bytes of a file begin, and how many they are


class RowFile:
    """A file of lines, open for one writer.

    Args:
        path: The file, not a link; made when there is none. Its folder must exist.
        pattern: What a line begins with; the first group is the row's number, the second is there
            if the row failed.

    Attributes:
        path: The file.
        size: Bytes of whole lines.
        cut: Bytes that a crash left behind them, and that were cut off.

    Raises:
        StorageError: It cannot be opened.
        UsageError: It is no regular file.
    """

    def __init__(self, path: Path, pattern: re.Pattern[bytes]) -> None:
        self.path, self.cut = path, 0
        self._pattern, self._dirty = pattern, False
        self._handle = -1
        self._open()
        try:
            status = os.fstat(self._handle)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(
                    f"{path} is no regular file; only a regular file can be gone on with",
                    hint="leave -o out: rows then go to stdout",
                )
            sync_folder(path.parent)
        except OSError as error:
            self.close()
            raise self._trouble(error) from error
        except UsageError:
            self.close()
            raise
        self.size = status.st_size

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
            flags |= getattr(os, name, 0)
        try:
            self._handle = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot write {self.path}: {reason(error)}",
            hint="when that is mended, the same command goes on where it ended",
        )

    def close(self) -> None:
        """Let go of the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    # Reading

    def read(self, limit: int) -> Iterator[tuple[int, bool]]:
        """Read which rows are there, in the order of the lines: the number, and whether it failed.
        What a crash left at the end is then cut off.

        Args:
            limit: A number that no row reaches.

        Raises:
            RefusedError: A line is none of ours.
            StorageError: It cannot be read, or cut.
        """
        end = 0
        for index, failed, size in self._lines(limit):
            end += size
            yield index, failed
        self.cut = self.size - end
        if self.cut:
            self._shorten(end)

    def _lines(self, limit: int) -> Iterator[tuple[int, bool, int]]:
        """Give number, failure and size of each line up to the first that a crash broke."""
        count, match = 0, self._pattern.match
        for block in self._blocks():
            hole = block.find(b"\0")
            end = len(block) if hole < 0 else block.rfind(b"\n", 0, hole) + 1
            for text in block[:end].split(b"\n")[:-1]:
                count += 1
                head = match(text)
                index = int(head[1]) if head else limit
                if head is None or index >= limit or not text.endswith(b"}"):
                    raise RefusedError(
                        f"{self.path}: line {count} is no row of this run",
                        hint="take that line out, or choose another -o",
                    )
                yield index, head[2] is not None, len(text) + 1
            if hole >= 0:
                return

    def _blocks(self) -> Iterator[bytes]:
        """Read the file as blocks of lines that have ends."""
        rest, offset = b"", 0
        while offset < self.size:
            block = self._at(offset, min(_BLOCK, self.size - offset))
            offset += len(block)
            whole = block.rfind(b"\n") + 1
            if whole:
                yield rest + block[:whole]
                rest = block[whole:]
            else:
                rest += block

    def _at(self, offset: int, size: int) -> bytes:
        """Read some of the file; everything is written at its end, wherever one reads."""
        try:
            os.lseek(self._handle, offset, os.SEEK_SET)
            block = os.read(self._handle, size)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {reason(error)}") from error
        if not block:
            raise RefusedError(f"{self.path}: became shorter while it was read")
        return block

    # Writing

    def append(self, line: bytes) -> None:
        """Add a line, with one call of the system; on failure nothing of it stays.

        Raises:
            StorageError: The disk refused.
        """
        view = memoryview(line)
        self._dirty = True
        try:
            while view:
                view = view[os.write(self._handle, view) :]
        except BaseException as error:
            with contextlib.suppress(OSError):  # it is cut when the file is opened again
                os.ftruncate(self._handle, self.size)
            if isinstance(error, OSError):
                raise self._trouble(error) from error
            raise
        self.size += len(line)

    def sync(self) -> None:
        """Make all lines durable.

        Raises:
            StorageError: The disk refused.
        """
        if self._dirty:
            try:
                os.fsync(self._handle)
            except OSError as error:
                raise self._trouble(error) from error
            self._dirty = False

    def empty(self) -> None:
        """Take all lines away, durably."""
        self._shorten(0)

    def _shorten(self, size: int) -> None:
        """Cut the end off, durably: before that, no line may come where a crash could bring it
        back.
        """
        try:
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)
        except OSError as error:
            raise self._trouble(error) from error
        self.size = size

    # Putting in order

    def drop_failed(self) -> None:
        """Take the lines of failed rows out: a new file takes the place of the old one."""
        self._replace(self._kept())

    def _kept(self) -> Iterator[Piece]:
        at = 0
        for _, failed, size in self._lines(1 << 53):
            if not failed:
                yield at, size
            at += size

    def sort(self) -> bool:
        """Put the lines in the order of their rows: a new file takes the place of the old one.
        Twelve bytes of memory a row are needed, whatever the size of the file.

        Returns:
            False when they were in order.

        Raises:
            StorageError: The disk refused; the old file is untouched.
        """
        last, low, high, ordered = -1, 1 << 53, -1, True
        for index, _, _ in self._lines(1 << 53):
            ordered = ordered and index > last
            last, low, high = index, min(low, index), max(high, index)
        if ordered:
            return False
        try:
            self._replace(self._in_order(low, high))
        except StorageError as error:
            hint = (
                "all rows are there, but putting them in order needs room for a second copy: make"
                " room and run the same command again, or add --unordered"
            )
            raise StorageError(error.message, hint=hint) from error
        return True

    def _in_order(self, low: int, high: int) -> Iterator[Piece]:
        """Give the lines in the order of their rows."""
        count = high - low + 1
        begins, sizes = array("Q", bytes(8 * count)), array("I", bytes(4 * count))
        at = 0
        for index, _, size in self._lines(1 << 53):
            begins[index - low], sizes[index - low] = at, size
            at += size
        return filter(_has_bytes, zip(begins, sizes, strict=True))

    def _replace(self, pieces: Iterable[Piece]) -> None:
        """Put a file made of pieces of this one in its place, durably."""
        try:
            with replacing(self.path) as new:
                if hasattr(os, "fchmod"):
                    os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(self._handle).st_mode))
                for begin, size in _joined(pieces):
                    while size:
                        block = self._at(begin, min(_BLOCK, size))
                        new.write(block)
                        begin, size = begin + len(block), size - len(block)
                self.close()  # Windows replaces no file that is open
        finally:
            self.close()
            self._open()
            self.size, self._dirty = os.fstat(self._handle).st_size, False


def _has_bytes(piece: Piece) -> bool:
    return piece[1] > 0


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Make one piece of those that lie behind each other: they are read at once."""
    begin = end = 0
    for at, size in pieces:
        if at != end:
            if end > begin:
                yield begin, end - begin
            begin = at
        end = at + size
    if end > begin:
        yield begin, end - begin
