"""Bytes: how many something takes, how many a disk has left, and how people read such numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

from rwkv_cli.errors import StorageError


def amount(nbytes: float, *, fine: bool = False) -> str:
    """Write bytes for people, in powers of a thousand: 3.1 GB, 382 MB, 1.2 MB, 12 kB, 96 B.

    Args:
        nbytes: How many.
        fine: Whether to write one digit more, as for a number that is watched while it grows.
    """
    for size, unit, short in ((1e9, "GB", 100), (1e6, "MB", 10)):
        if nbytes >= size:
            digits = (nbytes < short * size) + fine
            return f"{nbytes / size:,.{digits}f} {unit}"
    return f"{nbytes / 1e3:,.0f} kB" if nbytes >= 1000 else f"{nbytes:.0f} B"


def size_of(path: Path) -> int:
    """Count the bytes of a file, or of the files of a folder, as far as they can be seen."""
    try:
        if path.is_dir():
            return sum(one.stat().st_size for one in path.iterdir() if one.is_file())
        return path.stat().st_size
    except OSError:
        return 0


def standing(path: Path) -> Path:
    """Give a path, or of those above it the nearest at which there is something."""
    return next((one for one in (path, *path.parents) if one.exists()), Path())


def free_bytes(path: Path) -> int | None:
    """Count the bytes that are free on the disk where a path is or would be; None where nobody
    tells.
    """
    try:
        return shutil.disk_usage(standing(path)).free
    except OSError:
        return None


def require_room(
    folder: Path,
    nbytes: int,
    *,
    spare: int = 0,
    hint: str = "make room, or write to another disk",
) -> None:
    """Compare what shall be written with what the disk has left; a disk that does not tell passes.

    Args:
        folder: Where it shall be written.
        nbytes: How much it is.
        spare: What must stay free beside it.
        hint: What to do when it is too much.

    Raises:
        StorageError: It is too much.
    """
    free = free_bytes(folder)
    if free is not None and nbytes > max(0, free - spare):
        kept = f", of which {amount(spare)} are to stay so" if nbytes <= free else ""
        raise StorageError(
            f"this needs {amount(nbytes)}, and {amount(free)} are free in {folder}{kept}", hint=hint
        )
