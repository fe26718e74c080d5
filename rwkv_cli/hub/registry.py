"""What the user says about models: other names for them, the one to use when none is named, and
those that stay where they lie. One small JSON file in the data folder.

A file that is damaged costs what it holds, nothing else: models are found without it, and it is set
aside, not overwritten, when something new is written. What a newer version of this program added
to the file is kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rwkv_cli.errors import MismatchError, NotFoundError, RwkvError, StorageError
from rwkv_cli.files import make_folder, read_regular, reason, taking_turns, write_atomic
from rwkv_cli.places import data_folder

FORMAT = 1

_LARGEST = 1 << 20  # bytes
_TRIES = 5  # where locks do not work, and others write meanwhile
_OURS = ("format", "aliases", "default", "added")


@dataclass(frozen=True, slots=True)
class Registry:
    """What the file says.

    Attributes:
        aliases: Other name to the name or the path of a model.
        default: Name of the model to use when none is named; None: the newest.
        added: Name to path of the models that lie elsewhere.
        damage: Why the file could not be read; None when it could, or is not there.
        newer: Whether a newer version wrote it, in a way that this one cannot change.
        others: What else the file holds.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    added: Mapping[str, str] = field(default_factory=dict)
    damage: str | None = None
    newer: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)


def registry_file() -> Path:
    """Give the file.

    Raises:
        StorageError: There is no home folder.
    """
    return data_folder() / "models.json"


def read_registry() -> Registry:
    """Read the file; one that is not there says nothing, and one that is damaged says why."""
    try:
        return _parsed(bytes(read_regular(registry_file(), _LARGEST)))
    except NotFoundError:
        return Registry()
    except RwkvError as error:
        return Registry(damage=error.message)


def change_registry(change: Callable[[Registry], Registry]) -> Registry:
    """Read the file, change what it says, and write it whole, in turn with other processes.

    Args:
        change: Makes the new content of the old; may be asked more than once.

    Raises:
        MismatchError: A newer version of this program wrote the file.
        StorageError: The disk refused; the file is as it was.
    """
    path = registry_file()
    make_folder(path.parent, private=True)
    with taking_turns(path):
        for _ in range(_TRIES):
            changed = _written(path, change)
            # Only without locks can somebody have written an older content over this one.
            if change(read_registry()) == changed:
                return changed
    raise StorageError(f"{path} is being changed by other programs", hint="try again")


def _written(path: Path, change: Callable[[Registry], Registry]) -> Registry:
    before = read_registry()
    if before.newer:
        raise MismatchError(f"{path} was written by a newer version of rwkv")
    after = change(before)
    if after == before:
        return after
    if before.damage:
        _set_aside(path)
    after = replace(after, damage=None)
    write_atomic(path, [_bytes_of(after)], private=True)
    return after


def _set_aside(path: Path) -> None:
    """Keep a damaged file under the first name that is free."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
        number += 1
    try:
        path.rename(kept)
    except OSError as error:
        raise StorageError(f"cannot set {path} aside: {reason(error)}") from error


def _bytes_of(registry: Registry) -> bytes:
    ours = {
        "format": FORMAT,
        "aliases": dict(registry.aliases),
        "default": registry.default,
        "added": dict(registry.added),
    }
    return json.dumps({**registry.others, **ours}, indent=1, sort_keys=True).encode() + b"\n"


def _parsed(data: bytes) -> Registry:
    """Read the content; what makes no sense is damage."""
    where = registry_file()
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Registry(damage=f"{where} is damaged: it is not JSON ({error})"[:300])
    if not isinstance(table, dict) or not isinstance(table.get("format"), int):
        return Registry(damage=f"{where} is damaged: it says nothing of its format")
    aliases, added = table.get("aliases", {}), table.get("added", {})
    default = table.get("default")
    newer = table["format"] > FORMAT
    sound = _names(aliases) and _names(added) and (default is None or _is_usable(default))
    if not sound and not newer:
        return Registry(damage=f"{where} is damaged: a name or a path in it can be none")
    if not sound:
        return Registry(newer=True)
    others = {key: value for key, value in table.items() if key not in _OURS}
    return Registry(aliases, default, added, newer=newer, others=others)


def _names(table: object) -> bool:
    """Tell whether something maps names to names or paths."""
    return isinstance(table, dict) and all(map(_is_usable, (*table, *table.values())))


def _is_usable(text: object) -> bool:
    """Tell whether something is a text that the system takes as a path."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
