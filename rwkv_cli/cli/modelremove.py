"""Removing models, and saying first what else becomes of no use."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rwkv_cli.cli.asking import may_delete
from rwkv_cli.cli.modelbonds import Bonds
from rwkv_cli.cli.modelfacts import Known, find_installed
from rwkv_cli.engine.packcache import remove_cached
from rwkv_cli.errors import StorageError, UsageError
from rwkv_cli.files import reason
from rwkv_cli.hub import sidecar
from rwkv_cli.hub.names import demo
from rwkv_cli.hub.registry import Registry, change_registry, read_registry
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.sizes import amount

_SHOWN = 5  # names on a line


def remove(names: Sequence[str], *, yes: bool, quiet: bool) -> None:
    """Remove models with what was made from them; those added in place are only forgotten.

    Raises:
        NotFoundError: There is no model of a name; nothing was removed.
        UsageError: One of them cannot be removed, or nobody can be asked.
        StorageError: The disk refused.
    """
    found = {model.name: model for model in map(find_installed, names)}
    if any(model.path == demo() for model in found.values()):
        raise UsageError("the demo comes with the program and stays")
    bonds = {name: Bonds.of(model) for name, model in found.items()}
    lines = [line for name in found for line in _consequences(found[name], bonds[name], found)]
    if not yes:
        if not may_delete("rwkv models rm", lines):
            return
    elif not quiet:
        for line in lines:
            note(f"  {safe(line)}")
    for name, model in found.items():
        _remove(model, bonds[name] if not _kept(bonds[name], found) else Bonds())
        if not quiet:
            note(f"Forgot {safe(name)}." if model.is_added else f"Removed {safe(name)}.")


def _consequences(model: Known, bonds: Bonds, leaving: dict[str, Known]) -> Iterator[str]:
    """Say what goes, and what is of no use without it."""
    if model.is_added:
        yield f"{model.name}: forgotten; {model.path} stays"
    elif model.kind == "link":
        yield f"{model.name}: the link goes; {model.path.resolve()} stays"
    else:
        yield f"{model.name}: {amount(model.size)}, {model.path}"
    if names := _aliases(read_registry(), model):
        yield f"  with it go: {_some(names, 'alias', 'aliases')}"
    if read_registry().default == model.name:
        yield "  it is the default model; then the newest is"
    if twins := _kept(bonds, leaving):
        yield f"  the same weights stay here as {', '.join(twins)}"
        return
    if bonds.packings:
        size = amount(sum(cached.nbytes for cached in bonds.packings))
        yield f"  packed weights in the cache go too: {size}"
    if bonds.chats:
        yield f"  cannot be gone on with: {_some(bonds.chats, 'conversation', 'conversations')}"
    if bonds.states:
        yield f"  of no use without it: {_some(bonds.states, 'state', 'states')}"


def _kept(bonds: Bonds, leaving: dict[str, Known]) -> list[str]:
    """Name the models of the same weights that stay."""
    return [name for name in bonds.twins if name not in leaving]


def _some(names: Sequence[str], one: str, many: str) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    count = counted(1, one) if len(names) == 1 else f"{len(names):,} {many}"
    return f"{count} ({', '.join(names[:_SHOWN])}{more})"


def _aliases(registry: Registry, model: Known) -> list[str]:
    return [n for n, t in registry.aliases.items() if t in (model.name, str(model.path))]


def _remove(model: Known, bonds: Bonds) -> None:
    """Take a model away: what was made from it first, so that nothing is left without its origin.

    Raises:
        StorageError: The disk refused.
    """
    for cached in bonds.packings:
        remove_cached(cached)
    if not model.is_added:
        try:
            sidecar.path_of(model.path).unlink(missing_ok=True)
            _delete(model.path)
        except OSError as error:
            raise StorageError(f"cannot delete {model.path}: {reason(error)}") from error

    def change(registry: Registry) -> Registry:
        gone = _aliases(registry, model)
        return replace(
            registry,
            aliases={n: t for n, t in registry.aliases.items() if n not in gone},
            added={n: p for n, p in registry.added.items() if n != model.name},
            default=None if registry.default == model.name else registry.default,
        )

    change_registry(change)


def _delete(path: Path) -> None:
    """Take a file, a link or a folder away."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
