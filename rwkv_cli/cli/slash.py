"""The commands of the chat: what /undo, /set and the others do."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rwkv_cli.cli.options import whole_number
from rwkv_cli.cli.settings import check_range
from rwkv_cli.errors import UsageError
from rwkv_cli.generation import Randomness
from rwkv_cli.render.progress import dim
from rwkv_cli.render.sanitize import safe, safe_lines
from rwkv_cli.render.streams import note
from rwkv_cli.session import describe_turns

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


def obey(repl: Repl, name: str, argument: str) -> None:
    """Do what a command asks for.

    Raises:
        UsageError: There is no such command, or its argument makes no sense.
    """
    name = _ALIASES.get(name, name)
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        guess = f"did you mean /{close[0]}?" if close else "/help lists the commands"
        raise UsageError(f"no such command: /{name}", hint=f"{guess} (// sends a slash)")
    COMMANDS[name][0](repl, argument)


def _help(repl: Repl, argument: str) -> None:
    """List the commands."""
    for name, (_, usage, text) in COMMANDS.items():
        shown = f"/{name} {usage}"
        note(f"  {shown:<18} {text}")
    note("  Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-D leaves")


def _exit(repl: Repl, argument: str) -> None:
    """Leave."""
    repl.leaving = True


def _new(repl: Repl, argument: str) -> None:
    """Begin a new conversation; the old one stays where it is."""
    repl.begin_anew(repl.conversation.system)
    note(dim("new conversation"))


def _system(repl: Repl, argument: str) -> None:
    """Show the system text, or set it, which begins a new conversation."""
    if not argument:
        note(safe_lines(repl.conversation.system) or dim("there is no system text"))
        return
    repl.begin_anew("" if argument == "none" else argument)
    note(dim("new conversation"))


def _retry(repl: Repl, argument: str) -> None:
    """Answer the last message again, differently; without a new answer the old one stays."""
    conversation = repl.conversation
    turns, state = conversation.turns, conversation.state
    message = repl.take_back(1)
    conversation.vary()
    try:
        repl.answer(message)
    finally:
        if len(conversation.turns) < len(turns):
            conversation.turns, conversation.state = turns, state


def _undo(repl: Repl, argument: str) -> None:
    """Take back turns."""
    if argument and not (argument.isdecimal() and len(argument) < 10):
        raise UsageError(f"/undo takes a number of turns, not {argument!r}")
    count = int(argument or 1)
    repl.take_back(count)
    repl.commit()
    left = describe_turns(repl.conversation.turns)
    note(dim(f"took back {count}; the conversation has {left}"))


def _set(repl: Repl, argument: str) -> None:
    """Show or change how answers are made."""
    changes = dict(_setting(word) for word in argument.split())
    conversation, manner = repl.conversation, repl.conversation.manner
    if "seed" in changes:
        manner = replace(manner, randomness=Randomness(changes.pop("seed")))
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


def _stats(repl: Repl, argument: str) -> None:
    """Show the figures of the last answer, and from now on those of every answer."""
    repl.stats = argument != "off"
    note(dim(repl.figures or "no answer yet") if repl.stats else dim("figures are off"))


def _save(repl: Repl, argument: str) -> None:
    """Save the state to a file."""
    if not argument:
        raise UsageError("/save takes a file name, such as /save trip.rwkvstate")
    name = os.path.expanduser(argument)  # noqa: PTH111 - pathlib raises where nobody has that name
    repl.conversation.snapshot().save(Path(name))
    shown = safe(shlex.quote(name))
    note(dim(f'saved; go on with: rwkv generate --state {shown} --chat "your question"'))


# Name to what it does, its argument, and the line in the help.
COMMANDS: dict[str, tuple[Callable[[Repl, str], None], str, str]] = {
    "help": (_help, "", "this list"),
    "exit": (_exit, "", "leave; the conversation is kept"),
    "new": (_new, "", "begin a new conversation"),
    "retry": (_retry, "", "another answer to your last message"),
    "undo": (_undo, "[N]", "take back the last turn, or the last N"),
    "system": (_system, "TEXT", "set the system text and begin anew; 'none' removes it"),
    "set": (_set, "NAME=VALUE", "such as temperature=0.7; alone it shows all"),
    "stats": (_stats, "[off]", "figures of the answers: speed, tokens, state"),
    "save": (_save, "FILE", "save the state to a file"),
}
_ALIASES = {
    "quit": "exit", "bye": "exit", "q": "exit", "clear": "new", "reset": "new", "regen": "retry",
    "regenerate": "retry", "h": "help", "?": "help",
}  # fmt: skip
