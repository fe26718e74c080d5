"""Damaged files are set aside, not deleted: the newest of them stay for whoever wants to look."""

from __future__ import annotations

from pathlib import Path

from rwkv_cli.errors import StorageError
from rwkv_cli.store.disk import Disk

_KEPT = 16


def set_aside(disk: Disk, path: Path) -> None:
    """Take a damaged file of a conversation out of its way."""
    place = path.parent.parent / "quarantine"
    try:
        disk.make_folder(place)
    except StorageError:  # a disk that takes nothing: the file stays, and is found again
        return
    numbers = [int(name[:8]) for name in disk.names(place) if name[:8].isdecimal()]
    number = 1 + max(numbers, default=0)
    disk.move(path, place / f"{number:08}-{path.parent.name}-{path.name}")
    for name in disk.names(place)[:-_KEPT]:
        disk.discard_all(place / name)
