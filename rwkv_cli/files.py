"""Writing files that are either whole or not there, and reading ones that may be anything; knows
no format.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from rwkv_cli.errors import NotFoundError, RefusedError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PATIENCE = 10  # seconds to wait for others that change the same file
_STALE = 86_400  # seconds after which nobody is still writing a file
_OURS = re.compile(r"\..+\.\d+-[0-9a-f]{12}\.tmp", re.DOTALL)  # as `_temporary` names them

Look = Callable[[BinaryIO, int], None]

# A path that goes through a file, in a circle, or by a name that no file can have.
_NOWHERE = {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


def write_atomic(path: Path, parts: Iterable[bytes | memoryview], *, private: bool = False) -> None:
    """Replace a file by new content, durably: after a crash it holds the old bytes or the new ones.

    Args:
        path: The file; its folder must exist.
        parts: The content.
        private: Readable by the owner alone.

    Raises:
        StorageError: The disk refused; the old file is untouched.
    """
    with replacing(path, private=private) as file:
        for part in parts:
            file.write(part)


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Give a new file to write to, which takes the place of another, durably, when all went well.

    Args:
        path: The file to replace; its folder must exist.
        private: Readable by the owner alone.

    Raises:
        StorageError: The disk refused; the old file is untouched.
    """
    path = _target(path)
    temporary = _temporary(path)
    try:
        with _new_file(temporary, 0o600 if private else 0o666) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a new folder to write files to, which takes the place of another when all went well.

    Args:
        path: The folder to replace; the folder around it must exist.

    Raises:
        StorageError: The disk refused; the old folder is untouched.
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        put_folder(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_folder(new: Path, path: Path) -> None:
    """Give a folder of files a name, durably, in place of whatever has that.

    Raises:
        StorageError: The disk refused; what had the name has it still.
    """
    old = _temporary(path).with_suffix(".old")  # never swept: for a moment it is all there is
    try:
        for file in new.iterdir():
            with file.open("r+b") as content:
                os.fsync(content.fileno())
        sync_folder(new)
        if os.path.lexists(path):
            path.rename(old)
        new.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {reason(error)}") from error
    finally:
        if os.path.lexists(old):
            if not os.path.lexists(path):
                old.rename(path)
            else:
                _remove(old)


def _remove(path: Path) -> None:
    """Delete a file, a link or a folder, as far as the system lets us."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _target(path: Path) -> Path:
    """Follow links to the file to replace; never put a file in place of a folder or a device."""
    try:
        path = path.resolve() if path.is_symlink() else path
        special = path.exists() and not path.is_file()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        why = reason(error) if isinstance(error, OSError) else "its links go in a circle"
        raise StorageError(f"cannot write {path}: {why}") from error
    if special:
        raise StorageError(f"cannot write {path}: it is no regular file")
    return path


@contextlib.contextmanager
def taking_turns(path: Path) -> Iterator[None]:
    """While this lasts, no other process that takes turns on the same file does so, as far as locks
    work: where they do not, or somebody stands still, it goes on all the same. The lock lies beside
    the file and stays there, since the file itself is replaced; it ends with the process.

    Args:
        path: The file that is read, changed and replaced; its folder must exist.
    """
    handle = None
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks, or that takes nothing
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            handle = os.open(path.parent / f".{path.name}.lock", flags, 0o600)
            _wait_for_lock(handle)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _wait_for_lock(handle: int) -> None:
    """Take a lock, or give up after a while: a change takes milliseconds.

    Raises:
        OSError: There are no locks here.
    """
    given_up = time.monotonic() + _PATIENCE
    while time.monotonic() < given_up:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
        else:
            return


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed was writing into a folder, once it is a day old."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            ours = _OURS.fullmatch(path.name)
            if ours and path.lstat().st_mtime < time.time() - _STALE:
                _remove(path)


def remove_leftovers_of(path: Path) -> None:
    """Delete what killed processes were writing in place of one file, however new it is: who calls
    knows that nobody else writes that file now.
    """
    begin = f".{path.name}."
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            ours = entry.name.startswith(begin) and _OURS.fullmatch(entry.name)
            if ours and entry.name[len(begin) :].count(".") == 1:  # not of OUT.run.json, say
                _remove(Path(entry.path))


def _temporary(path: Path) -> Path:
    """Name a file beside another that nobody else writes."""
    return path.parent / f".{path.name}.{os.getpid()}-{os.urandom(6).hex()}.tmp"


def _new_file(path: Path, mode: int) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, mode), "wb")


def make_folder(folder: Path, *, private: bool = False, hint: str | None = None) -> None:
    """Make a folder, and those above it, where there is none.

    Args:
        folder: The folder.
        private: For the owner alone.
        hint: What to do when it cannot be made.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {reason(error)}", hint=hint) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no such thing
            raise
    finally:
        os.close(handle)


def read_regular(path: Path, limit: int, look: Look | None = None) -> bytearray:
    """Read a whole file that someone else may have made.

    Args:
        path: The file.
        limit: Most bytes it may have.
        look: Called with the open file and its size before all of it is read; may refuse it.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is no regular file, or larger than the limit.
        StorageError: It cannot be read.
    """
    try:
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with os.fdopen(handle, "rb") as file:  # buffered: a single read ends at 2 GiB
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RefusedError(f"{path}: is not a regular file")
            if status.st_size > limit:
                raise RefusedError(f"{path}: is larger than expected ({status.st_size:,} bytes)")
            if look:
                look(file, status.st_size)
                file.seek(0)
            content = bytearray(status.st_size)
            if file.readinto(content) != status.st_size:
                raise RefusedError(f"{path}: changed while it was read")
            return content
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except IsADirectoryError as error:
        raise RefusedError(f"{path}: is a folder") from error
    except OSError as error:
        if error.errno in _NOWHERE:
            raise NotFoundError(f"no such file: {path} ({reason(error)})") from error
        if error.errno == errno.ENXIO:  # a socket
            raise RefusedError(f"{path}: is not a regular file") from error
        raise StorageError(f"cannot read {path}: {reason(error)}") from error


def reason(error: OSError) -> str:
    """Say in the system's words what went wrong."""
    return (error.strerror or type(error).__name__).lower()
