"""Changing what models are called here, and which is used when none is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rwkv_cli.checkpoints.filenames import model_name
from rwkv_cli.cli.modelfacts import find_installed, find_model, known_models
from rwkv_cli.cli.settings import origins
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.hub.matching import same_name
from rwkv_cli.hub.names import DEMO_NAME
from rwkv_cli.hub.registry import Registry, change_registry, read_registry
from rwkv_cli.places import expanded

_LONGEST = 100


def set_default(name: str) -> str:
    """Say which model is used when none is named; its own name.

    Raises:
        NotFoundError: There is no such model.
        UsageError: It has no name here.
    """
    chosen = find_installed(name).name
    change_registry(lambda registry: replace(registry, default=chosen))
    return chosen


def unset_default() -> None:
    """Let the newest model be used again when none is named."""
    change_registry(lambda registry: replace(registry, default=None))


def set_elsewhere() -> str | None:
    """Say which setting names a model, since that comes before the default; None when none does."""
    found = origins({}).get("model")
    return found.where if found else None


def set_alias(name: str, target: str) -> str:
    """Give a model another name; the name or the path that it stands for.

    Raises:
        NotFoundError: There is no such model.
        UsageError: The name cannot be used.
    """
    model = find_model(target)
    named = any(known.path == model.path for known in known_models())
    meant = model.name if named else str(model.path.absolute())
    _check_name(name)
    _check_free(name, allowed=meant)

    def change(registry: Registry) -> Registry:
        others = {n: t for n, t in registry.aliases.items() if not same_name(n, name)}
        return replace(registry, aliases={**others, name: meant})

    change_registry(change)
    return meant


def remove_alias(name: str) -> None:
    """Forget another name of a model.

    Raises:
        NotFoundError: There is no such name.
    """
    known = [alias for alias in read_registry().aliases if same_name(alias, name)]
    if not known:
        raise NotFoundError(f"there is no alias {name[:_LONGEST]!r}", hint="rwkv models lists them")

    def change(registry: Registry) -> Registry:
        aliases = {n: t for n, t in registry.aliases.items() if n not in known}
        return replace(registry, aliases=aliases)

    change_registry(change)


def add_in_place(place: str, name: str | None) -> tuple[str, Path]:
    """Give a name to a model that stays where it lies; its header is read first.

    Raises:
        NotFoundError: There is nothing at that path.
        RefusedError: It is no model.
        UsageError: The name cannot be used, or the model has one.
    """
    path = expanded(place).absolute()
    path = path.parent.resolve() / path.name  # a link stays one, in a path without detours
    if not path.exists():
        raise NotFoundError(f"no such file: {path}")
    open_model(path)
    name = model_name(path) if name is None else name
    for known in known_models():
        if known.path == path and known.name != name:
            raise UsageError(
                f"{path} is called {known.name} already",
                hint=f"rwkv models alias {name} {known.name}",
            )
    _check_name(name)
    _check_free(name, allowed=str(path))
    if any(same_name(name, alias) for alias in read_registry().aliases):
        raise UsageError(f"{name} is an alias", hint=f"rwkv models alias --remove {name}")
    change_registry(lambda registry: replace(registry, added={**registry.added, name: str(path)}))
    return name, path


def _check_name(name: str) -> None:
    """Refuse a name that could be meant for something else, or that a terminal cannot show.

    Raises:
        UsageError: It cannot be used.
    """
    sound = name.isprintable() and not any(char in name for char in " /\\:@")
    if not sound or not name or len(name) > _LONGEST or name[0] in ".~-":
        raise UsageError(
            f"{name[:_LONGEST]!r} is no name for a model",
            hint=f"up to {_LONGEST} letters, digits, dots, - and _ make one",
        )


def _check_free(name: str, *, allowed: str) -> None:
    """Refuse a name that another model has.

    Args:
        name: The name.
        allowed: Name or path of the model that is to have it.

    Raises:
        UsageError: It is taken.
    """
    if same_name(name, DEMO_NAME) and allowed != DEMO_NAME:
        raise UsageError(f"{DEMO_NAME} is the model that comes along")
    for model in known_models():
        if same_name(name, model.name) and allowed not in (model.name, str(model.path)):
            raise UsageError(f"{model.name} is a model already: {model.path}")
