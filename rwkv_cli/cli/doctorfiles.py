"""What `rwkv doctor` says about files: models, what is said of them, settings, folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rwkv_cli.cli.doctorprobe import Probe
from rwkv_cli.cli.settings import collect, origins, variables
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.hub.registry import read_registry, registry_file
from rwkv_cli.places import config_file, models_folder
from rwkv_cli.sizes import amount, free_bytes, standing

_SHOWN = 3  # names in a line
_LITTLE = 1 << 30  # bytes of a disk below which nothing much fits


def models() -> Probe:
    """Look at the header of every model, and for links that lead nowhere."""
    from rwkv_cli.cli.modelfacts import known_models
    from rwkv_cli.cli.modelheaders import headers
    from rwkv_cli.hub.names import DEMO_NAME

    folder = models_folder()
    known = [model for model in known_models() if model.name != DEMO_NAME]
    told = zip(known, headers(known), strict=True)
    unusable = {model.name: header.why for model, header in told if header.why is not None}
    facts: dict[str, Any] = {
        "folder": str(folder),
        "installed": [model.name for model in known],
        "unusable": unusable,
        "dangling": _dangling(folder),
        "free": free_bytes(folder),
    }
    default, step = _default()
    facts["default"] = default
    what = f"{len(known)} installed" if known else "none installed, the demo is used"
    if facts["free"] is not None:
        what = f"{amount(facts['free'])} free; {what}"
    if unusable:
        names = list(unusable)
        what += f"; unusable: {_some([f'{name} ({unusable[name]})' for name in names])}"
        step = step or f"rwkv models show {names[0]}"
    if dangling := facts["dangling"]:
        what += f"; links that lead nowhere: {_some(dangling)}"
        step = step or f"remove {folder / dangling[0]}"
    if not known:
        step = step or f"rwkv download, or put a weights file into {folder}"
    return Probe(f"{folder} ({what})", step, facts)


def _default() -> tuple[str | None, str | None]:
    """Give the model that is used when none is named, or what to do when that is gone."""
    from rwkv_cli.hub.names import default_model

    try:
        return str(default_model(models_folder())), None
    except NotFoundError as error:
        return None, error.hint


def _dangling(folder: Path) -> list[str]:
    """Name the links of a folder that lead nowhere."""
    try:
        return sorted(p.name for p in folder.iterdir() if p.is_symlink() and not p.exists())
    except OSError:
        return []


def registry() -> Probe:
    """Look at what the user said of models."""
    path, said = registry_file(), read_registry()
    gone = [name for name, place in said.added.items() if not Path(place).exists()]
    facts: dict[str, Any] = {
        "path": str(path),
        "aliases": len(said.aliases),
        "added": len(said.added),
        "gone": gone,
        "default": said.default,
        "damage": said.damage,
    }
    if said.damage:
        return Probe(said.damage, f"mend or remove {path}; models are found without it", facts)
    if said.newer:
        return Probe(f"{path} was written by a newer version of rwkv", "update rwkv", facts)
    if gone:
        what = f"{path}; added in place, but gone: {_some(gone)}"
        return Probe(what, f"rwkv models rm {gone[0]}", facts)
    what = f"aliases: {len(said.aliases)}, added in place: {len(said.added)}"
    return Probe(f"{path} ({what if path.exists() else 'made when needed'})", None, facts)


def config() -> Probe:
    """Read the settings as every command does."""
    path = config_file()
    known, unknown = variables()
    facts: dict[str, Any] = {
        "path": str(path),
        "exists": path.exists(),
        "environment": known,
        "unknown": unknown,
        "set": [],
        "error": None,
    }
    try:
        collect({})
        facts["set"] = sorted(key for key, one in origins({}).items() if one.where == str(path))
    except (UsageError, NotFoundError) as error:
        facts["error"] = error.message
        return Probe(error.message, error.hint or "rwkv config unset KEY, or edit it", facts)
    what = f"{path} ({_count(len(facts['set']))})" if path.exists() else f"{path} (not there)"
    if known:
        what += f"; environment: {', '.join(known)}"
    if unknown:
        name, meant = next(iter(unknown.items()))
        hint = f"did you mean {meant}?" if meant else f"unset {name}"
        return Probe(f"{what}; without effect: {', '.join(unknown)}", hint, facts)
    return Probe(what, None, facts)


def _count(settings: int) -> str:
    return "1 setting" if settings == 1 else f"{settings} settings"


def folder(find: Callable[[], Path], variable: str) -> Probe:
    """Look at a folder of ours: whether it can be written, and how much room there is.

    Args:
        find: Gives the folder.
        variable: What names another one.
    """
    path = find()
    exists, nearest = path.exists(), standing(path)
    what = str(path) if exists else f"{path} (made when needed)"
    facts: dict[str, Any] = {"path": str(path), "exists": exists, "free": free_bytes(path)}
    facts["writable"] = os.access(nearest, os.W_OK | os.X_OK) and nearest.is_dir()
    if facts["free"] is not None:
        what += f"; {amount(facts['free'])} free"
    if not facts["writable"]:
        mend = f"make {nearest} writable, or name another folder ({variable})"
        return Probe(f"{what}; cannot be written", mend, facts)
    full = facts["free"] is not None and facts["free"] < _LITTLE
    return Probe(what, "make room on that disk" if full else None, facts)


def hugging_face(path: Path) -> Probe:
    """Look for the cache that other programs fill with models."""
    facts: dict[str, Any] = {"path": str(path), "models": []}
    try:
        names = sorted(p.name for p in path.iterdir() if p.name.startswith("models--"))
    except FileNotFoundError:
        return Probe(f"{path} (not there)", None, facts)
    except OSError as error:
        return Probe(f"{path}: {error.strerror}", f"look at {path}", facts)
    facts["models"] = [name.removeprefix("models--").replace("--", "/") for name in names]
    ours = [name for name in facts["models"] if "rwkv" in name.lower()]
    facts["rwkv"] = ours
    return Probe(f"{path} ({len(names)} models, {len(ours)} of them RWKV)", None, facts)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
