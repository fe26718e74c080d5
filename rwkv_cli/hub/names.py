"""From what people call a model to its file: a path, another name that the user gave it, the name
of an installed model or a part of it. What is not here is met with the command that fetches it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.checkpoints.filenames import SUFFIXES, model_name
from rwkv_cli.errors import NotFoundError, RwkvError, StorageError
from rwkv_cli.files import reason
from rwkv_cli.hub.matching import matching, plain, same_name
from rwkv_cli.hub.registry import Registry, read_registry
from rwkv_cli.hub.sidecar import read
from rwkv_cli.places import expanded
from rwkv_cli.sizes import amount

if TYPE_CHECKING:
    from rwkv_cli.hub.catalogue import Entry
    from rwkv_cli.hub.wanted import Wanted

DEMO_NAME = "demo"

_SHOWN = 80  # characters of a name in a message
_SEVERAL = 8  # names in a message
_REMOTE = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[^:@]+)?(@[\w.-]+)?|\w+://.+", re.ASCII)


class NotInstalledError(NotFoundError):
    """A published model is meant that is not here.

    Attributes:
        entry: It.
    """

    def __init__(self, name: str, entry: Entry) -> None:
        size = f"  ({amount(entry.bytes)})" if entry.bytes else ""
        hint = f"rwkv download {entry.name}{size}"
        super().__init__(f"{_cut(name)} is not installed", hint=hint)
        self.entry = entry


def installed(folder: Path, registry: Registry | None = None) -> dict[str, Path]:
    """List the models that have a name here: those of a folder, and those added in place.

    Args:
        folder: Where models are installed. Files with a suffix of weights are models, and folders
            with a config.json and weights; those whose names differ in the suffix alone are called
            by their files' names.
        registry: What the user says about models; read when it is not given.
    """
    registry = read_registry() if registry is None else registry
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # not there, or not for us: doctor tells
        entries = []
    paths = [path for path in entries if _is_model(path)]
    added = {name: Path(path) for name, path in registry.added.items()}
    stems = [*map(model_name, paths), *added]
    found = {p.name if stems.count(model_name(p)) > 1 else model_name(p): p for p in paths}
    return found | added


def resolve(name: str, folder: Path) -> Path:
    """Find the file or the folder of a model.

    Args:
        name: A path, "demo", another name that the user gave a model, an installed model's name or
            a part of it that only one has, or the repository an installed model came from.
        folder: Where models are installed.

    Raises:
        NotInstalledError: It is a published model that is not here.
        NotFoundError: Nothing has that name, or several have.
        StorageError: The path leads where this user may not look.
    """
    if name == DEMO_NAME:
        return demo()
    path = expanded(name)
    as_path = _is_path(path, name)
    if _exists(path) and (as_path or _is_model(path) or not path.is_dir()):
        return _model_at(path)
    registry = read_registry()
    files = installed(folder, registry)
    found = _named(name, files, registry)
    if found is None and _REMOTE.fullmatch(name) and not _is_local(path, name):
        found = _downloaded_from(name, files)
    if found is not None:
        return _present(found, name)
    raise _missing(path) if as_path else _unknown(name, [*files, *registry.aliases], folder)


def default_model(folder: Path) -> Path:
    """Choose a model when none was named: the one the user chose, or the newest, or the demo.

    Raises:
        NotFoundError: The one the user chose is gone.
    """
    registry = read_registry()
    files = installed(folder, registry)
    if registry.default is not None:
        try:
            return _target("the default model", registry.default, files)
        except NotFoundError as error:
            raise NotFoundError(error.message, hint="rwkv models default --unset") from error
    return max(filter(_exists, files.values()), key=_modified, default=demo())


def demo() -> Path:
    """Give the file of the model that comes along."""
    from rwkv_cli.engine.modelfile import DEMO

    return DEMO


def _named(name: str, files: Mapping[str, Path], registry: Registry) -> Path | None:
    """Find what has a name; None when nothing has.

    Raises:
        NotFoundError: Several have it.
    """
    for alias, target in registry.aliases.items():
        if same_name(name, alias):
            return _target(alias, target, files)
    if found := [p for stem, p in files.items() if name in (stem, p.name)]:
        return found[0]
    fitting = matching(name, files)
    if len(fitting) > 1:
        raise _ambiguous(name, fitting)
    return files[fitting[0]] if fitting else None


def _target(alias: str, target: str, files: Mapping[str, Path]) -> Path:
    """Find what another name stands for."""
    if target == DEMO_NAME:
        return demo()
    path = files.get(target, Path(target))
    if not path.is_absolute() or not _exists(path):
        what = f"{_cut(alias)} is {_cut(target)}, which is gone"
        raise NotFoundError(what, hint=f"rwkv models alias --remove {alias}")
    return path


def _downloaded_from(name: str, files: Mapping[str, Path]) -> Path:
    """Find the installed model that came from a repository or a URL.

    Raises:
        NotFoundError: There is none, or there are several.
    """
    from rwkv_cli.hub.wanted import parse

    try:
        wanted = parse(name)
    except RwkvError as error:
        raise NotFoundError(f"no such file: {_cut(name)}", hint=error.hint) from error
    found = [one for one, path in files.items() if _came_from(path, wanted)]
    if len(found) > 1:
        raise _ambiguous(name, found)
    if not found:
        what = f"there is no file {_cut(name)}, and nothing that is here was downloaded from there"
        raise NotFoundError(what, hint=f"rwkv download {_cut(name)}")
    return files[found[0]]


def _came_from(path: Path, wanted: Wanted) -> bool:
    known = read(path)
    if known is None or wanted.url:
        return known is not None and known.url == wanted.url
    return (
        (known.repo or "").lower() == wanted.repo.lower()
        and wanted.file in ("", known.file, path.name)
        and (known.revision or "").startswith(wanted.revision)
    )


def _model_at(path: Path) -> Path:
    """Give a path at which there is something; a folder must be a model."""
    if path.is_dir() and not _is_model(path):
        raise NotFoundError(
            f"{_cut(str(path))} is a folder without a model: no config.json with weights",
            hint="name the weights file in it",
        )
    return path


def _present(path: Path, name: str) -> Path:
    """Give the path of a model that the listing named, if its file is still there."""
    if not _exists(path):
        raise NotFoundError(f"the file of {_cut(name)} is gone: {_cut(str(path))}")
    return path


def _exists(path: Path) -> bool:
    """Tell whether there is something at a path that this user may look at."""
    try:
        path.stat()
    except (OSError, ValueError):  # a name no file can have, links in a circle, a dangling link
        return False
    return True


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # taken away meanwhile
        return 0


def _missing(path: Path) -> StorageError | NotFoundError:
    """Say why there is nothing at a path."""
    try:
        path.stat()
    except PermissionError as error:
        return StorageError(f"cannot read {_cut(str(path))}: {reason(error)}")
    except OSError as error:
        why = "" if isinstance(error, FileNotFoundError) else f" ({reason(error)})"
        return NotFoundError(f"no such file: {_cut(str(path))}{why}")
    return NotFoundError(f"no such file: {_cut(str(path))}")


def _is_model(path: Path) -> bool:
    """Tell by its name whether something is a model: a file of weights, or a folder of them."""
    try:
        if path.suffix in SUFFIXES and not path.name.startswith("."):
            return path.is_file()
        return (path / "config.json").is_file() and any(
            child.suffix in SUFFIXES for child in path.iterdir()
        )
    except OSError:
        return False


def _is_path(path: Path, name: str) -> bool:
    """Tell whether a name can be meant for nothing but a path."""
    return len(path.parts) != 1 or path.suffix in SUFFIXES or name.startswith((".", "~"))


def _is_local(path: Path, name: str) -> bool:
    """Tell whether something of the form of a repository is meant as a path all the same."""
    return ":" not in name and (path.suffix in SUFFIXES or path.parent.is_dir())


def _catalogued(name: str) -> Entry | None:
    from rwkv_cli.hub.catalogue import find

    return find(name)


def _unknown(name: str, names: Iterable[str], folder: Path) -> NotFoundError:
    """Say that nothing has a name, and what there is instead."""
    if entry := _catalogued(name):
        return NotInstalledError(name, entry)
    known = [*names, DEMO_NAME]
    close = difflib.get_close_matches(plain(name)[:_SHOWN], known, n=1, cutoff=0.5)
    if close:
        hint = f"did you mean {close[0]}?"
    else:
        where = f"rwkv download --list, put a weights file into {folder}, or name one with its path"
        hint = f"installed: {_listed(known)}; for others, {where}"
    return NotFoundError(f"no model called {_cut(name)!r}", hint=hint)


def _ambiguous(name: str, found: Iterable[str]) -> NotFoundError:
    what = f"{_cut(name)!r} could be any of {_listed(list(found))}"
    return NotFoundError(what, hint="give more of the name")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SEVERAL} more" if len(names) > _SEVERAL else ""
    return ", ".join(names[:_SEVERAL]) + more


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
