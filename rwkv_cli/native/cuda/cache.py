"""Compiled kernels in the cache folder: each in a file that is named after all that made it, and
that begins with a checksum of the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rwkv_cli.errors import RwkvError, StorageError
from rwkv_cli.files import read_regular, reason, remove_leftovers, write_atomic
from rwkv_cli.places import cache_folder

_SUFFIX = ".cubin"
_LARGEST = 256 << 20  # bytes
_KEPT = 32  # kernels for several cards and precisions, and what was found out about them


def key(parts: Iterable[str]) -> str:
    """Name what is made from some texts; each may be of any length."""
    total = hashlib.sha256()
    for part in parts:
        content = part.encode()
        total.update(len(content).to_bytes(8, "little") + content)
    return total.hexdigest()[:32]


def path_of(name: str) -> Path:
    """Give the file of a key, there or not.

    Raises:
        StorageError: There is no home folder for a cache.
    """
    return _folder() / (name + _SUFFIX)


def read(name: str) -> bytes | None:
    """Give what is kept under a key; None when there is nothing, or when it is damaged."""
    try:
        content = bytes(read_regular(path_of(name), _LARGEST))
    except RwkvError:
        return None
    image = content[32:]
    return image if content[:32] == _checksum(image) and image else None


def write(name: str, image: bytes) -> None:
    """Keep something under a key.

    Raises:
        StorageError: The folder cannot be written to; nothing has changed.
    """
    path = path_of(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path.parent}: {reason(error)}") from error
    write_atomic(path, [_checksum(image), image])
    _prune(path)


def kept() -> list[Path]:
    """List the files of the cache, the newest first; none when it cannot be read."""
    with suppress(OSError, StorageError):
        found = [(path.stat().st_mtime, path) for path in _folder().glob("*" + _SUFFIX)]
        return [path for _, path in sorted(found, reverse=True)]
    return []


def _folder() -> Path:
    return cache_folder() / "cuda"


def _checksum(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


def _prune(newest: Path) -> None:
    """Remove what was compiled for sources and cards that have not been used for longest, and what
    killed processes left.
    """
    remove_leftovers(newest.parent)
    for path in [path for path in kept() if path != newest][_KEPT - 1 :]:
        with suppress(OSError):
            path.unlink()
