"""`rwkv models`: the models that -m knows by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import click

from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.hub.names import DEMO_NAME, installed
from rwkv_cli.hub.registry import read_registry
from rwkv_cli.places import models_folder
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDOUT, is_terminal, note, stdout_sink, terminal_width

Words = tuple[str, ...]
Flags = dict[str, Any]

_SOUND = re.compile(r"\w[\w.,%+-]*")

# Flag to the one thing to do that it goes with.
_BELONGS = {
    "paths": "ls", "names": "ls", "unset": "default", "remove": "alias", "called": "add",
    "yes": "rm",
}  # fmt: skip


@click.command(cls=Command)
@click.argument(
    "action",
    default="ls",
    type=click.Choice(["ls", "show", "default", "alias", "add", "verify", "rm"]),
)
@click.argument("words", nargs=-1, metavar="[NAME|PATH]...")
@click.option("--paths", is_flag=True, help="With ls: only the files' paths.")
@click.option("--names", is_flag=True, help="With ls: only what -m understands, a name a line.")
@click.option("--unset", is_flag=True, help="With default: the newest is used again.")
@click.option("--remove", is_flag=True, help="With alias: forget the name.")
@click.option("--name", "called", metavar="NAME", help="With add: else that of the file.")
@click.option("-y", "--yes", is_flag=True, help="With rm: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="With ls, show, verify: JSON.")
@common_options
def models(action: str, words: Words, **flags: Any) -> None:
    """List, name, check and remove the models that -m knows.

    Files of weights (.pth, .safetensors, .st, .bin, .gguf) and Hugging Face folders in the models
    folder are installed; add takes in one that stays where it lies, without copying it. A part of a
    name that only one has is enough, and 1b5 is 1.5b. In the list, * marks the one that is used
    when none is named.

    \b
    rwkv models
    rwkv models default 1.5b
    rwkv models alias daily 1.5b
    rwkv models add /mnt/big/RWKV-x060-World-7B.pth --name seven
    rwkv models show seven
    rwkv models verify
    rwkv models rm seven
    """
    for flag, owner in _BELONGS.items():
        if flags[flag] and action != owner:
            shown = "--name" if flag == "called" else f"--{flag}"
            raise UsageError(f"{shown} goes with {owner}", hint=f"rwkv models {owner} {shown} ...")
    if flags["as_json"] and action not in ("ls", "show", "verify"):
        raise UsageError("--json goes with ls, show and verify", hint="rwkv models ls --json")
    damage = read_registry().damage
    if damage and not flags["quiet"] and not flags["names"]:
        note(f"rwkv: {safe(damage)}; other names and the default are not known")
    _ACTIONS[action](words, flags)


def _ls(words: Words, flags: Flags) -> None:
    """List the models and the other names."""
    if words:
        raise UsageError(f"ls takes no {words[0]!r}", hint=f"rwkv models show {words[0]}")
    if flags["names"]:
        _names()
        return
    from rwkv_cli.cli.modelfacts import brief, known_models, row, used
    from rwkv_cli.cli.modelheaders import headers

    found = known_models()
    first = used()
    if flags["paths"]:
        text = "".join(f"{model.path}\n" for model in found)
    elif flags["as_json"]:
        told = (brief(*pair) for pair in zip(found, headers(found), strict=True))
        text = "".join(
            json.dumps({**one, "default": one["path"] == str(first)}) + "\n" for one in told
        )
    else:
        from rwkv_cli.render.tables import fitted

        rows = [
            [f"{'*' if model.path == first else ' '} {model.name}", *row(model, header)]
            for model, header in zip(found, headers(found), strict=True)
        ]
        widest = max(len(one[1]) for one in rows)
        text = fitted([[name, size.rjust(widest), *rest] for name, size, *rest in rows], _width())
        aliases = read_registry().aliases.items()
        text += "".join(f"  {safe(name)} = {safe(target)}\n" for name, target in aliases)
    stdout_sink(wraps=False).write(text.encode("utf-8", "surrogateescape"))
    if not flags["quiet"] and len(found) == 1:
        note(
            "To get a model: rwkv download, or put a weights file into "
            f"{safe(str(models_folder()))}"
        )


def _names() -> None:
    """Print what completes -m: names that no shell reads as anything else."""
    names = [*installed(models_folder()), *read_registry().aliases, DEMO_NAME]
    sound = [name for name in names if _SOUND.fullmatch(name)]
    stdout_sink(wraps=False).write("".join(f"{name}\n" for name in sound).encode())


def _show(words: Words, flags: Flags) -> None:
    """Tell everything that is known of a model."""
    from rwkv_cli.cli.modelfacts import find_model, full

    facts = full(find_model(_one(words, "show", "NAME")))
    if flags["as_json"]:
        text = json.dumps(facts)
    else:
        from rwkv_cli.render.tables import hanging

        rows = [(key, _told(key, value)) for key, value in facts.items()]
        text = hanging(rows, 14, _width()).rstrip()
    stdout_sink(wraps=False).write(text.encode("utf-8", "replace") + b"\n")


def _told(key: str, value: object) -> str:
    """Write a fact for people."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,} bytes" if key in ("size", "state") else f"{value:,}"
    return str(value)


def _default(words: Words, flags: Flags) -> None:
    """Tell or change which model is used when none is named."""
    from rwkv_cli.cli import modelnames

    if flags["unset"]:
        _none(words, "default --unset")
        modelnames.unset_default()
    elif words:
        chosen = modelnames.set_default(_one(words, "default", "NAME"))
        if not flags["quiet"]:
            note(f"{safe(chosen)} is used when no model is named.")
    if (first := modelnames.set_elsewhere()) and not flags["quiet"]:
        note(f"{safe(first)} says which model comes first.")
    if not words and not flags["unset"]:
        from rwkv_cli.cli.modelfacts import name_of, used

        path = used()
        if path is None:
            raise NotFoundError("the default model is gone", hint="rwkv models default NAME")
        stdout_sink(wraps=False).write(f"{safe(name_of(path))}\n".encode())


def _alias(words: Words, flags: Flags) -> None:
    """Give a model another name, or forget one."""
    from rwkv_cli.cli import modelnames

    if flags["remove"]:
        modelnames.remove_alias(_one(words, "alias --remove", "NAME"))
    elif len(words) == 2:
        target = modelnames.set_alias(*words)
        if not flags["quiet"]:
            note(f"{words[0]} = {safe(target)}")
    else:
        raise UsageError("alias takes a new name and a model", hint="rwkv models alias daily 1.5b")


def _add(words: Words, flags: Flags) -> None:
    """Take in a model that stays where it lies."""
    from rwkv_cli.cli import modelnames

    name, path = modelnames.add_in_place(_one(words, "add", "PATH"), flags["called"])
    if not flags["quiet"]:
        note(f"{safe(name)} = {safe(str(path))}; nothing was copied.")


def _verify(words: Words, flags: Flags) -> None:
    """Check models against what is known of them."""
    from rwkv_cli.cli.modelverify import verify

    verify(words, as_json=flags["as_json"], quiet=flags["quiet"])


def _rm(words: Words, flags: Flags) -> None:
    """Remove models."""
    from rwkv_cli.cli.modelremove import remove

    if not words:
        raise UsageError("rm takes the name of a model", hint="rwkv models lists them")
    remove(words, yes=flags["yes"], quiet=flags["quiet"])


def _one(words: Words, action: str, what: str) -> str:
    """Give the one word that must be there."""
    if len(words) != 1:
        raise UsageError(f"{action} takes one {what}", hint=f"rwkv models {action} {what}")
    return words[0]


def _width() -> int | None:
    """Give the columns of the terminal; None where lines may be of any length."""
    return terminal_width() if is_terminal(STDOUT) else None


def _none(words: Words, action: str) -> None:
    if words:
        raise UsageError(f"{action} takes no {words[0]!r}", hint=f"rwkv models {action}")


_ACTIONS: dict[str, Callable[[Words, Flags], None]] = {
    "ls": _ls,
    "show": _show,
    "default": _default,
    "alias": _alias,
    "add": _add,
    "verify": _verify,
    "rm": _rm,
}
