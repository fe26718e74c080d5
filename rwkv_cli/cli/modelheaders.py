"""What the headers of models tell in a list. The cache folder remembers it, so that a list of many
large models is quick; a file that changed is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.errors import RwkvError
from rwkv_cli.files import read_regular, write_atomic
from rwkv_cli.places import cache_folder
from rwkv_cli.version import __version__

if TYPE_CHECKING:
    from rwkv_cli.cli.modelfacts import Known

_LARGEST = 1 << 22  # bytes of what is remembered
_FIELDS = ("version", "family", "weights")


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a model tells.

    Attributes:
        version: Of RWKV.
        family: Name of its chat format.
        weights: The precision of most of its weights.
        why: Why it cannot be read; None when it can.
    """

    version: str = ""
    family: str = ""
    weights: str = ""
    why: str | None = None


def headers(models: Iterable[Known]) -> list[Header]:
    """Tell what the headers of models say, from memory where a file is what it was."""
    known, found, seen = _remembered(), [], {}
    for model in models:
        mark = _mark(model.path)
        header = known.get(mark) if mark else None
        if header is None:
            header = read_header(model)
        if mark and header.why is None:
            seen[mark] = header
        found.append(header)
    if not set(seen) <= set(known):
        _remember(seen)
    return found


def read_header(model: Known) -> Header:
    """Read the header of a model."""
    file = model.file
    if file is None:
        return Header(why=model.why)
    return Header(file.arch.name, file.template, model.weights)


def _mark(path: Path) -> str | None:
    """Tell one content of a file from another without reading it; folders are read each time."""
    try:
        status = path.stat()
        mark = f"{path};{status.st_size};{status.st_mtime_ns};{status.st_ino};{__version__}"
        return None if path.is_dir() else mark
    except OSError:
        return None


def _file() -> Path:
    return cache_folder() / "headers.json"


def _remembered() -> dict[str, Header]:
    """Read what was remembered; nothing when that makes no sense."""
    try:
        table: Any = json.loads(read_regular(_file(), _LARGEST))
        rows = {mark: {name: row[name] for name in _FIELDS} for mark, row in table.items()}
    except (RwkvError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return {}
    sound = {m: r for m, r in rows.items() if all(isinstance(text, str) for text in r.values())}
    return {mark: Header(**row) for mark, row in sound.items()}


def _remember(seen: dict[str, Header]) -> None:
    """Write what was seen; that it cannot be written costs time the next time, nothing else."""
    with suppress(RwkvError, OSError):
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({mark: asdict(header) for mark, header in seen.items()})
        write_atomic(_file(), [text.encode()], private=True)
