"""A disk that is looked at and left as it is, for conversations that shall leave no trace."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from rwkv_cli.store.disk import Disk


class ReadOnlyDisk(Disk):
    """Refuses every step that changes something, as a disk that is mounted read-only does."""

    def mkdir(self, folder: Path) -> None:
        """Refuse."""
        raise _refusal(folder)

    def create(self, path: Path, size: int) -> int:  # noqa: ARG002
        """Refuse."""
        raise _refusal(path)

    def link(self, source: Path, target: Path) -> None:  # noqa: ARG002
        """Refuse."""
        raise _refusal(target)

    def rename(self, source: Path, target: Path) -> None:  # noqa: ARG002
        """Refuse."""
        raise _refusal(target)

    def unlink(self, path: Path) -> None:
        """Refuse."""
        raise _refusal(path)

    def remove_folder(self, folder: Path) -> None:
        """Refuse."""
        raise _refusal(folder)


def _refusal(path: Path) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
