"""One regular file, opened safely and mapped into memory; knows nothing of what its bytes mean."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rwkv_cli.errors import LimitError, NotFoundError, RefusedError

# O_NONBLOCK: opening a FIFO must not wait for a writer.
_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
# Without it Linux refuses to map a private file larger than memory plus swap (mm/util.c).
# The mmap module has the name only from Python 3.13.
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_KINDS = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a character device"),
    (stat.S_ISBLK, "is a block device"),
)


class Origin:
    """Where tensors come from: a file, or a folder of several.

    Attributes:
        path: For messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def refused(self, reason: str, *, hint: str | None = None) -> RefusedError:
        """The error to raise when it cannot be used; `reason` continues the path."""
        return RefusedError(f"{self.path} {reason}", hint=hint)


class Source(Origin):
    """The bytes of one file, mapped copy-on-write: writing to them never reaches the disk.

    Attributes:
        path: Where the file lies, for messages.
        size: Length in bytes.
        view: All bytes of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        descriptor = _open(path)
        try:
            self.size = _regular_size(descriptor, path)
            self._mapping = _map(descriptor, self.size, path)
        finally:
            os.close(descriptor)
        self.view = memoryview(self._mapping)
        self._base = _address(self.view)

    def take(self, offset: int, length: int, what: str) -> memoryview:
        """The `length` bytes at `offset`.

        Raises:
            RefusedError: They are not all inside the file.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self.refused(
                f"is cut short or corrupt: {what} at byte {offset} needs {length} bytes, "
                f"the file has {self.size}"
            )
        return self.view[offset : offset + length]

    def forget(self, data: memoryview) -> None:
        """Lets the kernel drop the whole pages inside `data`; they return from disk when read."""
        if not data.nbytes or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = _address(data) - self._base
        end = start + data.nbytes
        if start < 0 or end > self.size:
            return  # a rearranged copy, not part of the mapping
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            with suppress(OSError):
                self._mapping.madvise(mmap.MADV_DONTNEED, first, length)

    @contextmanager
    def scattered_reads(self) -> Iterator[None]:
        """Within it the kernel reads no pages ahead; after it none are resident."""
        self._advise("MADV_RANDOM")
        yield
        self._advise("MADV_NORMAL")
        self._advise("MADV_DONTNEED")

    def _advise(self, advice: str) -> None:
        if hasattr(mmap, advice):
            with suppress(OSError):
                self._mapping.madvise(getattr(mmap, advice))


def _open(path: Path) -> int:
    try:
        return os.open(path, _OPEN_FLAGS)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        # ValueError: a NUL byte in the name, so no such file can exist.
        raise NotFoundError(f"{path} does not exist") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be opened: {error.strerror}") from error


def _regular_size(descriptor: int, path: Path) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        kind = next((text for test, text in _KINDS if test(status.st_mode)), "is no regular file")
        raise RefusedError(f"{path} {kind}, not a weights file")
    if status.st_size == 0:
        raise RefusedError(f"{path} is empty")
    return status.st_size


def _map(descriptor: int, size: int, path: Path) -> mmap.mmap:
    try:
        if sys.platform == "win32":
            return mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY)
        return mmap.mmap(
            descriptor,
            size,
            flags=mmap.MAP_PRIVATE | _MAP_NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    except (OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise LimitError(f"{path} cannot be mapped: there is no memory left for it") from error
        raise RefusedError(f"{path} cannot be mapped into memory: {error}") from error


def _address(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


class MemorySource(Source):
    """Bytes that were read already, so that a file changing underneath cannot be seen half-way."""

    def __init__(self, path: Path, content: bytearray) -> None:
        Origin.__init__(self, path)
        self.size = len(content)
        self.view = memoryview(content)
