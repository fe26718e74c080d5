"""The commands of the chat. A group of commands is a file; this is the table of all of them."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rwkv_cli.cli.slash.command import Command
from rwkv_cli.cli.slash.conversation import COMMANDS as _CONVERSATION
from rwkv_cli.cli.slash.manner import COMMANDS as _MANNER
from rwkv_cli.cli.slash.material import COMMANDS as _MATERIAL
from rwkv_cli.cli.slash.travel import COMMANDS as _TRAVEL
from rwkv_cli.cli.slash.turn import COMMANDS as _TURN
from rwkv_cli.cli.slash.view import COMMANDS as _VIEW
from rwkv_cli.errors import UsageError
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl

# What a group is about, and its commands by name.
GROUPS: dict[str, dict[str, Command]] = {
    "conversation": _CONVERSATION,
    "turn": _TURN,
    "time": _TRAVEL,
    "material": _MATERIAL,
    "model": _MANNER,
    "view": _VIEW,
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

# What the same act is called elsewhere.
_ALIASES = {
    "quit": "exit", "bye": "exit", "q": "exit", "clear": "new", "reset": "new", "regen": "retry",
    "regenerate": "retry", "c": "continue", "read": "file", "f": "file", "h": "help", "?": "help",
}  # fmt: skip

# Commands that are followed by paths.
PATHS = ("file", "export", "save")

_LEFT = 24  # columns of the commands in the help
_KEYS = (
    ("Alt-Enter, Ctrl-J", "begin a new line"),
    ("Ctrl-C", "stops an answer and keeps it"),
    ("Esc Esc", "changes your last message"),
    ("Ctrl-R", "searches what you typed before"),
    ("Ctrl-X Ctrl-E", "opens your editor"),
    ("Ctrl-D", "leaves"),
)

# The old words of ChatRWKV, typed alone.
OLD_WORDS = {"+": "retry", "++": "retry", "+++": "continue", "+reset": "new"}


def obey(repl: Repl, name: str, argument: str) -> None:
    """Do what a command asks for.

    Raises:
        UsageError: There is no such command, or its argument makes no sense.
    """
    name = _ALIASES.get(name, name)
    if name == "help":
        _help(argument)
    elif name in COMMANDS:
        COMMANDS[name].act(repl, argument)
    else:
        close = difflib.get_close_matches(name, [*COMMANDS, "help"], n=1)
        guess = f"did you mean /{close[0]}?" if close else "/help lists the commands"
        raise UsageError(f"no such command: /{name}", hint=f"{guess} (// sends a slash)")


def words_for(repl: Repl, name: str) -> Sequence[str]:
    """Give what may follow the name of a command."""
    command = COMMANDS.get(_ALIASES.get(name, name))
    return command.words(repl) if command and command.words else ()


def _help(argument: str) -> None:
    """List the commands, or tell about one."""
    wanted = argument.strip().lstrip("/")
    for title, group in GROUPS.items():
        rows = {name: c for name, c in group.items() if wanted in ("", name)}
        if rows and not wanted:
            note(dim(title))
        for name, command in rows.items():
            note(_row(f"/{name} {command.usage}", command.help))
    note(dim("keys"))
    for keys, what in _KEYS:
        note(_row(keys, what))


def _row(left: str, right: str) -> str:
    """Set two texts beside each other, or below each other where that is too wide."""
    if len(left) > _LEFT or _LEFT + len(right) + 3 > shutil.get_terminal_size().columns:
        return f"  {left}\n      {right}"
    return f"  {left:<{_LEFT}} {right}"
