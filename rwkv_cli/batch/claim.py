"""Files that one run has for itself alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rwkv_cli.batch.manifest import manifest_path
from rwkv_cli.batch.rowfile import RowFile
from rwkv_cli.batch.writing import HEADS
from rwkv_cli.errors import NotFoundError, StorageError, UsageError
from rwkv_cli.files import reason, remove_leftovers_of
from rwkv_cli.hub.sharing import alone


@contextlib.contextmanager
def claimed(path: Path, layout: str, note: Callable[[str], None]) -> Iterator[RowFile]:
    """Open a file of rows for ourselves, and clear away what killed runs were writing beside it.

    Args:
        path: The file, as `real` gives it.
        layout: How its lines are written.
        note: Told where there are no locks.

    Raises:
        NotFoundError: There is no such folder.
        StorageError: Another process writes it, or it cannot be opened.
        UsageError: It is no regular file.
    """

    def refuse() -> None:
        raise StorageError(
            f"another run is writing {path}",
            hint="wait until it has ended, or choose another -o",
        )

    def lockless() -> None:
        note(f"{path.parent} has no locks: start no second run that writes {path.name}")

    if not path.parent.is_dir():
        raise NotFoundError(f"no such folder: {path.parent}", hint=f"mkdir -p '{path.parent}'")
    with alone(path.with_name(f".{path.name}.lock"), refuse, lockless):
        for name in (path, manifest_path(path)):
            remove_leftovers_of(name)
        with contextlib.closing(RowFile(path, HEADS[layout])) as file:
            yield file


def real(path: Path) -> Path:
    """Follow links, so that a file has one lock and one manifest, whatever it is called by.

    Raises:
        StorageError: Links go in a circle.
        UsageError: It is there, and no regular file.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe's path leads nowhere once it is resolved
            what = "a folder" if path.is_dir() else "no regular file"
            raise UsageError(
                f"{path} is {what}; only a regular file can be gone on with",
                hint="leave -o out: rows then go to stdout",
            )
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        why = reason(error) if isinstance(error, OSError) else "its links go in a circle"
        raise StorageError(f"cannot write {path}: {why}") from error
