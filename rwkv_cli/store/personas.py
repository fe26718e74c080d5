"""System texts that the user gave a name: small files in one folder."""

from __future__ import annotations

from pathlib import Path

from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.files import read_regular, write_atomic
from rwkv_cli.places import data_folder
from rwkv_cli.store.disk import make_private
from rwkv_cli.store.named import NAME

_LARGEST = 1 << 20  # bytes
_SUFFIX = ".txt"


def personas() -> list[str]:
    """List the names."""
    folder = _folder()
    if not folder.is_dir():
        return []
    return sorted(p.stem for p in folder.glob(f"*{_SUFFIX}") if NAME.fullmatch(p.stem))


def load_persona(name: str) -> str:
    """Give a system text by its name.

    Raises:
        NotFoundError: There is none of that name.
        RefusedError: Its file is none that can be read.
    """
    if name not in personas():
        known = f"; there are: {', '.join(personas())}" if personas() else ""
        raise NotFoundError(
            f"there is no persona {name!r}{known}",
            hint="/persona save NAME keeps the system text of now",
        )
    return bytes(read_regular(_path(name), _LARGEST)).decode("utf-8", "replace").strip()


def save_persona(name: str, text: str) -> None:
    """Keep a system text, in place of the one of that name.

    Raises:
        UsageError: That is no name, or there is no text.
        StorageError: The disk refused.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name", hint="letters, digits, dots, - and _ make one")
    if not text.strip():
        raise UsageError("there is no system text to keep", hint="/system TEXT sets one")
    make_private(_folder())
    write_atomic(_path(name), [text.encode("utf-8", "replace")], private=True)


def _folder() -> Path:
    return data_folder() / "personas"


def _path(name: str) -> Path:
    return _folder() / f"{name}{_SUFFIX}"
