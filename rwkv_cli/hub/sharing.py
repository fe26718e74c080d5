"""One process at a time on one file; the others wait, and take over when it dies."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rwkv_cli.errors import StorageError
from rwkv_cli.files import reason

try:
    import fcntl
except ImportError:  # Windows: two processes would write the same bytes to the same places
    fcntl = None  # type: ignore[assignment]

_PAUSE = 0.2  # seconds between two looks
_HELD = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}


@contextlib.contextmanager
def alone(
    lock: Path, waiting: Callable[[], None], lockless: Callable[[], None] | None = None
) -> Iterator[None]:
    """Be the only one at work while this lasts.

    The system frees the lock of a process that dies. The file is deleted by whoever holds it, and
    whoever gets the lock of a file that is no longer there begins again with the one that is.

    Args:
        lock: A file for this purpose.
        waiting: Called again and again while another process is at work.
        lockless: Called once where locks do not work, so that nobody is kept away.

    Raises:
        StorageError: The file cannot be made.
    """
    handle = _taken(lock, waiting, lockless or _say_nothing)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(handle)


def _taken(lock: Path, waiting: Callable[[], None], lockless: Callable[[], None]) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        try:
            handle = os.open(lock, flags, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write {lock}: {reason(error)}") from error
        try:
            while not _locked(handle, lockless):
                waiting()
                time.sleep(_PAUSE)
            if _is_still(lock, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _say_nothing() -> None:
    """What happens where locks do not work and nobody wants to know."""


def _locked(handle: int, lockless: Callable[[], None]) -> bool:
    """Take the lock, if it is free; where locks do not work, everyone has it."""
    if fcntl is None:
        lockless()
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        lockless()
    return True


def _is_still(lock: Path, handle: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(handle))
    except OSError:
        return False
