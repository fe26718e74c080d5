"""`rwkv config`: what is set, where, and setting it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli import tomledit
from rwkv_cli.cli.configfile import config_text, parsed
from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.cli.settings import (
    Origin,
    Settings,
    check_change,
    check_key,
    checked,
    origins,
    overruling,
)
from rwkv_cli.errors import NotFoundError, RwkvError, UsageError
from rwkv_cli.files import make_folder, taking_turns, write_atomic
from rwkv_cli.places import config_file
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note, stdout_sink
from rwkv_cli.render.tables import fitted

Words = tuple[str, ...]
Flags = dict[str, Any]

_DRAWN = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
    "presence": "presence", "frequency": "frequency", "penalty_decay": "penalty_decay",
    "sampler_order": "order",
}  # fmt: skip
_LONGEST = 60  # characters of a value in the table
_PRIVATE = 0o077


@click.command(cls=Command)
@click.argument(
    "action", default="show", type=click.Choice(["show", "get", "set", "unset", "path"])
)
@click.argument("words", nargs=-1, metavar="[KEY] [VALUE]")
@click.option("--origin", is_flag=True, help="With show: where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="With show: one JSON object.")
@common_options
def config(action: str, words: Words, **flags: Any) -> None:
    """Show the settings, and change those of the config file.

    A flag comes before the environment (RWKV_TEMPERATURE), that before the config file, that before
    what the model's family recommends. The keys are the names of the flags.

    \b
    rwkv config show --origin
    rwkv config set model 1.5b
    rwkv config set temperature 0.8
    rwkv config get temperature
    rwkv config unset temperature
    rwkv config path
    """
    for flag in ("origin", "as_json"):
        if flags[flag] and action != "show":
            shown = f"--{flag.removeprefix('as_')}"
            raise UsageError(f"{shown} goes with show", hint=f"rwkv config show {shown}")
    _ACTIONS[action](words, flags)


def effective() -> dict[str, Origin]:
    """Tell every setting with what it comes to and where that is from; None is left to the model.

    Raises:
        UsageError: Something is set to what makes no sense.
    """
    found = origins({})
    sampling, family = _preset(found)
    for field in fields(Settings):
        if field.name in found:
            continue
        if field.name in _DRAWN:
            found[field.name] = Origin(getattr(sampling, _DRAWN[field.name]), f"preset {family}")
        else:
            found[field.name] = Origin(None, "built-in")
    return {field.name: found[field.name] for field in fields(Settings)}


def _preset(found: dict[str, Origin]) -> tuple[Any, str]:
    """Give what is recommended for the model that is used when none is named."""
    from rwkv_cli.cli.modelfacts import used
    from rwkv_cli.engine.modelfile import open_model
    from rwkv_cli.sampling import PRESETS

    family = "world"
    if "template" in found:
        family = str(found["template"].value)
    elif path := used():
        try:
            family = open_model(path).template
        except RwkvError:  # the model cannot be used, which using it tells
            return PRESETS[family], family
    return PRESETS.get(family, PRESETS["world"]), family


def _show(words: Words, flags: Flags) -> None:
    if words:
        raise UsageError(f"show takes no {words[0]!r}", hint=f"rwkv config get {words[0]}")
    found = effective()
    if flags["as_json"]:
        table = {key: {"value": one.value, "origin": one.where} for key, one in found.items()}
        text = json.dumps(table) + "\n"
    else:
        rows = [[key, _short(one.value)] for key, one in found.items()]
        if flags["origin"]:
            rows = [[*row, one.where] for row, one in zip(rows, found.values(), strict=True)]
        text = fitted(rows, None)
    stdout_sink(wraps=False).write(text.encode("utf-8", "replace"))


def _short(value: object) -> str:
    """Write a value for the table."""
    text = "-" if value is None else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _get(words: Words, flags: Flags) -> None:
    key = _key(_counted(words, 1, "get takes one KEY", "rwkv config get temperature")[0])
    value = effective()[key].value
    if value is None:
        raise NotFoundError(f"{key} is not set", hint=f"rwkv config set {key} VALUE")
    stdout_sink(wraps=False).write(f"{value}\n".encode("utf-8", "surrogateescape"))


def _set(words: Words, flags: Flags) -> None:
    hint = "rwkv config set temperature 0.8"
    key, text = _counted(words, 2, "set takes a KEY and a VALUE", hint)
    key = _key(key)
    value = checked(key, text)
    value = list(value) if isinstance(value, tuple) else value  # as the file has it
    _check_text(key, text)

    def change(content: str, table: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        changed = {**table, key: value}
        check_change(table, changed)
        return tomledit.with_setting(content, key, value), changed

    path = _change(change)
    if flags["quiet"]:
        return
    note(f"{key} = {safe(_short(value))} in {safe(str(path))}")
    if first := overruling(key):
        note(f"{first.where} says {safe(_short(first.value))}, and comes first.")


def _unset(words: Words, flags: Flags) -> None:
    key = _counted(words, 1, "unset takes one KEY", "rwkv config unset temperature")[0]
    key = key.replace("-", "_") if "-" in key else key

    def change(content: str, table: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        if key not in table:  # what is no setting can be in the file, and must be got rid of
            check_key(key)
            raise NotFoundError(f"{key} is not set in {config_file()}")
        rest = {name: value for name, value in table.items() if name != key}
        return tomledit.without_setting(content, key), rest

    path = _change(change)
    if not flags["quiet"]:
        note(f"{safe(key)} is no longer set in {safe(str(path))}")


def _path(words: Words, flags: Flags) -> None:
    _counted(words, 0, "path takes no words", "rwkv config path")
    stdout_sink(wraps=False).write(f"{config_file()}\n".encode("utf-8", "surrogateescape"))


def _change(change: Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]) -> Path:
    """Change the config file, in turn with other processes.

    Args:
        change: Makes the new text, and what it must come to, of the old.

    Raises:
        UsageError: The file is not TOML, or cannot be changed safely.
        StorageError: The disk refused; the file is as it was.
    """
    path = config_file()
    make_folder(path.parent, private=True)
    with taking_turns(path):
        text = config_text(path)
        changed, expected = change(text, parsed(text, path))
        try:
            sound = parsed(changed, path) == expected
        except UsageError:
            sound = False
        if not sound:
            raise UsageError(f"{path} has a form that cannot be changed safely", hint="edit it")
        if changed != text:
            write_atomic(path, [changed.encode()], private=_is_private(path))
    return path


def _is_private(path: Path) -> bool:
    """Tell whether a file is for its owner alone, which it then stays."""
    try:
        return not path.stat().st_mode & _PRIVATE
    except OSError:  # new
        return False


def _check_text(key: str, text: str) -> None:
    """Refuse what TOML cannot hold.

    Raises:
        UsageError: It is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{key} is not UTF-8") from error


def _key(text: str) -> str:
    """Read the name of a setting, as in the file or as a flag's."""
    key = text.removeprefix("--").replace("-", "_")
    check_key(key)
    return key


def _counted(words: Words, count: int, complaint: str, hint: str) -> Words:
    """Give as many words as there must be."""
    if len(words) != count:
        raise UsageError(complaint, hint=hint)
    return words


_ACTIONS: dict[str, Callable[[Words, Flags], None]] = {
    "show": _show,
    "get": _get,
    "set": _set,
    "unset": _unset,
    "path": _path,
}
