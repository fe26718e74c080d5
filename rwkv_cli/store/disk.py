"""Every touch of the disk the store makes: one object, so that a test can record each step, cut the
power after any of them, and let any of them fail.

A file is published under its name only when all of its bytes are durable, and is announced only
when its name is. A failed fsync is never tried again on the same descriptor: the system may have
dropped the bytes and forgotten; the file is written once more from memory instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from rwkv_cli.errors import NotFoundError, RefusedError, StorageError
from rwkv_cli.files import reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp-"  # how the names of unfinished files begin

_NO_ROOM_AHEAD = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}  # cannot reserve, but can write
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}

_ABANDONED = 3600  # seconds after which nobody still writes an unfinished file

Parts = Iterable[bytes | memoryview]


class Disk:
    """The disk as the store uses it; raises `StorageError` with a plain sentence."""

    # Steps: each is one call of the system that can fail, or be the last before a crash.

    def mkdir(self, folder: Path) -> None:
        """Make a folder only its owner can open."""
        folder.mkdir(mode=0o700)

    def create(self, path: Path, size: int) -> int:
        """Make an empty file with room for its bytes; its descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"):
            flags |= getattr(os, name, 0)
        handle = os.open(path, flags, 0o600)
        try:
            if size and hasattr(os, "posix_fallocate"):
                self.reserve(handle, size)
        except OSError:
            os.close(handle)
            self.discard(path)  # a disk that is full shall not fill with empty files
            raise
        return handle

    def reserve(self, handle: int, size: int) -> None:
        """Find out now whether there is room."""
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in _NO_ROOM_AHEAD:
                raise

    def write(self, handle: int, data: memoryview) -> int:
        """Write some of the bytes; how many."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Make a file's bytes durable."""
        os.fsync(handle)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, if nobody has it."""
        os.link(source, target)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of whatever has it."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """Take a folder away, with all that is in it."""
        shutil.rmtree(folder)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        if os.name != "posix":
            return
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
        finally:
            os.close(handle)

    # What the steps are for

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, durably, for the owner alone.

        Raises:
            StorageError: The disk refused, or the folder is someone else's.
        """
        missing = []
        at = folder
        while not at.is_dir() and at != at.parent:
            missing.append(at)
            at = at.parent
        try:
            for new in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    self.mkdir(new)
                self.sync_folder(new.parent)
            status = folder.stat()
        except OSError as error:
            raise StorageError(f"cannot make {folder}: {reason(error)}") from error
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            raise StorageError(f"{folder} belongs to another user")

    def publish(self, path: Path, parts: Parts, *, durable: bool = True) -> bool:
        """Make a file, whole and durable, unless its name is taken.

        Args:
            path: The file; its folder must exist.
            parts: Its bytes.
            durable: Whether its name must survive a power failure too.

        Returns:
            False when there is a file of that name; it is untouched.

        Raises:
            StorageError: The disk refused.
        """
        try:
            return self._publish(path, b"".join(parts), durable=durable)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {reason(error)}") from error

    def replace(self, path: Path, parts: Parts) -> None:
        """Put new bytes, whole and durable, in place of a file.

        Raises:
            StorageError: The disk refused; the old file is untouched.
        """
        try:
            temporary = self._written(path, b"".join(parts))
            try:
                self.rename(temporary, path)
            finally:
                self.discard(temporary)
            self.sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {reason(error)}") from error

    def move(self, path: Path, target: Path) -> None:
        """Take a file elsewhere on the same disk; what is gone already is no failure."""
        with contextlib.suppress(OSError):
            self.rename(path, target)

    def discard(self, path: Path) -> None:
        """Take away a file that nobody needs; that it stays is no failure."""
        with contextlib.suppress(OSError):
            self.unlink(path)

    def discard_all(self, path: Path) -> None:
        """Take away a file, or a folder with all that is in it; that it stays is no failure."""
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                self.remove_folder(path)
            else:
                self.unlink(path)

    def clear(self, folder: Path) -> None:
        """Take away what was begun here and never finished. Whether its writer still lives cannot
        be asked where locks do not work, so only its age tells.
        """
        for name in self.names(folder):
            if name.startswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    if time.time() - (folder / name).lstat().st_mtime > _ABANDONED:
                        self.unlink(folder / name)

    def names(self, folder: Path) -> list[str]:
        """List a folder; one that is not there is empty.

        Raises:
            StorageError: It cannot be read.
        """
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted, not paths
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"cannot read {folder}: {reason(error)}") from error

    def read(self, path: Path, limit: int) -> bytes:
        """Read a small file of ours.

        Raises:
            NotFoundError: It is gone.
            RefusedError: It is no regular file, or too large.
            StorageError: It cannot be read.
        """
        flags = os.O_RDONLY
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
            flags |= getattr(os, name, 0)
        try:
            handle = os.open(path, flags)
        except FileNotFoundError as error:
            raise NotFoundError(f"no such file: {path}") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise RefusedError(f"{path}: is a link") from error
            raise StorageError(f"cannot read {path}: {reason(error)}") from error
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise RefusedError(f"{path}: is not a regular file")
            if status.st_size > limit:
                raise RefusedError(f"{path}: is larger than expected ({status.st_size:,} bytes)")
            with open(handle, "rb", buffering=0, closefd=False) as file:
                return file.read(status.st_size) or b""
        except OSError as error:
            raise StorageError(f"cannot read {path}: {reason(error)}") from error
        finally:
            os.close(handle)

    def _publish(self, path: Path, content: bytes, *, durable: bool) -> bool:
        try:
            new = self._named(path, content)
        except FileNotFoundError:  # the clock jumped, and somebody took our file for an old one
            new = self._named(path, content)
        if new and durable:
            self.sync_folder(path.parent)
        return new

    def _named(self, path: Path, content: bytes) -> bool:
        """Write a file and give it its name; False when somebody has it."""
        temporary = self._written(path, content)
        try:
            return self._give_name(temporary, path)
        finally:
            self.discard(temporary)

    def _give_name(self, temporary: Path, path: Path) -> bool:
        """Link a finished file to its name; False when somebody has it."""
        try:
            self.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:  # a file system without hard links: claim the name first
                os.close(self.create(path, 0))
            except FileExistsError:
                return False
            try:
                self.rename(temporary, path)
            except OSError:
                self.discard(path)
                raise
        return True

    def _written(self, path: Path, content: bytes) -> Path:
        """Write bytes durably to a new temporary file beside a name; once more if it fails."""
        try:
            return self._write(path, content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return self._write(path, content)

    def _write(self, path: Path, content: bytes) -> Path:
        temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
        handle = self.create(temporary, len(content))
        try:
            view = memoryview(content)
            while view:
                view = view[self.write(handle, view) :]
            self.sync(handle)
        except OSError:
            self.discard(temporary)
            raise
        finally:
            os.close(handle)
        return temporary


def hold(path: Path) -> int | None:
    """Lock a file to say that somebody goes on writing it, as far as locks work; a descriptor that
    ends it by being closed.
    """
    if fcntl is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # others then think it is dead, which loses nothing
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def is_held(path: Path) -> bool:
    """Tell whether somebody says to be writing a file; where locks do not work, nobody does."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can open.

    Raises:
        StorageError: The disk refused, or the folder is someone else's.
    """
    Disk().make_folder(folder)
