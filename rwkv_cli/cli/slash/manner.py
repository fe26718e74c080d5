"""Commands about how answers are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rwkv_cli.cli.options import whole_number
from rwkv_cli.cli.settings import check_range
from rwkv_cli.cli.slash.command import Command
from rwkv_cli.errors import UsageError
from rwkv_cli.render.sanitize import safe, safe_lines
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.store.personas import load_persona, personas, save_persona
from rwkv_cli.traces import Randomness

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl

_SETTABLE: dict[str, Callable[[str], Any]] = {
    "temperature": float,
    "top_p": float,
    "top_k": whole_number,
    "min_p": float,
    "presence": float,
    "frequency": float,
    "penalty_decay": float,
    "max_tokens": whole_number,
    "seed": whole_number,
    "think": str,
}


def _system(repl: Repl, argument: str) -> None:
    """Show the system text, or set it, which begins a new conversation."""
    if not argument:
        note(safe_lines(repl.conversation.system) or dim("there is no system text"))
        return
    repl.begin_anew("" if argument == "none" else argument)
    note(dim("new conversation"))


def _model(repl: Repl, argument: str) -> None:
    """Show the model, or go on in a copy of the conversation with another one."""
    model = repl.conversation.model
    if not argument:
        note(f"  {safe(model.name)}, {safe(model.identity.arch)}, {model.identity.numerics}")
        return
    repl.change_model(argument)


def _set(repl: Repl, argument: str) -> None:
    """Show or change how answers are made."""
    changes = dict(_setting(word) for word in argument.split())
    conversation, manner = repl.conversation, repl.conversation.manner
    if "seed" in changes:
        manner = replace(manner, randomness=Randomness(changes.pop("seed")), seeded=True)
    if "think" in changes:
        conversation.template.turn("", changes["think"])
    other = {k: changes.pop(k) for k in ("max_tokens", "think") if k in changes}
    sampling = manner.sampling.with_changes(**changes)
    conversation.manner = manner = replace(manner, sampling=sampling, **other)
    values = {**sampling.to_json(), "max_tokens": manner.max_tokens}
    values |= {"think": manner.think or "default", "seed": manner.randomness.seed}
    shown = [f"{name}={values[name]}" for name in _SETTABLE]
    note("  ".join(shown[:5]) + "\n" + "  ".join(shown[5:]))


def _setting(word: str) -> tuple[str, Any]:
    """Read one name=value.

    Raises:
        UsageError: It is none, the name is unknown, or the value does not fit.
    """
    name, equals, value = word.partition("=")
    name = name.replace("-", "_")
    if not equals or name not in _SETTABLE:
        raise UsageError(f"{word!r} is no setting", hint=f"name=value with {', '.join(_SETTABLE)}")
    try:
        number = _SETTABLE[name](value)
    except ValueError as error:
        raise UsageError(f"{name} must be a number, not {value!r}") from error
    check_range(name, number)
    return name, number


def _persona(repl: Repl, argument: str) -> None:
    """Begin anew with a system text that has a name, keep the one of now, or list them."""
    word, _, name = argument.partition(" ")
    if not argument:
        known = ", ".join(personas()) or "none yet; /persona save NAME keeps the system text of now"
        note(dim(f"personas: {safe(known)}"))
    elif word == "save":
        save_persona(name.strip(), repl.conversation.system)
        note(dim(f"the system text is kept as {safe(name.strip())}"))
    else:
        repl.begin_anew(load_persona(argument))
        note(dim(f"new conversation, as {safe(argument)}"))


def _think(repl: Repl, argument: str) -> None:
    """Show or set how the model thinks."""
    conversation = repl.conversation
    if argument:
        _set(repl, f"think={argument}")
        return
    modes = conversation.template.think_modes
    now = conversation.manner.think or "default"
    known = ", ".join(modes) if modes else "off alone: this model does not think"
    note(dim(f"think is {now}; there is {known}"))


def _seed(repl: Repl, argument: str) -> None:
    """Show or set where random numbers come from."""
    _set(repl, f"seed={argument}" if argument else "")


def _names(repl: Repl) -> list[str]:
    return [f"{name}=" for name in _SETTABLE]


def _modes(repl: Repl) -> Sequence[str]:
    return repl.conversation.template.think_modes or ("off",)


COMMANDS = {
    "system": Command(_system, "[TEXT]", "set the system text and begin anew; 'none' removes it"),
    "persona": Command(
        _persona, "[NAME|save NAME]", "begin anew with a kept system text", lambda _: personas()
    ),
    "model": Command(_model, "[MODEL]", "go on in a copy with another model"),
    "set": Command(_set, "NAME=VALUE", "such as temperature=0.7; alone it shows all", _names),
    "think": Command(_think, "[MODE]", "off, fast, short, on or long", _modes),
    "seed": Command(_seed, "N", "makes the random numbers repeat"),
}
