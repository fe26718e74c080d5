"""What a command of the chat is, and what several of them need."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rwkv_cli.errors import UsageError

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl


class Command(NamedTuple):
    """A command.

    Attributes:
        act: Does it, given what follows its name.
        usage: What follows its name, for the help.
        help: What it does, in a few words.
        words: Gives what may follow its name, for completion; None for nothing.
    """

    act: Callable[[Repl, str], None]
    usage: str
    help: str
    words: Callable[[Repl], Sequence[str]] | None = None


def places(repl: Repl) -> list[str]:
    """Name the turns, as people call them."""
    tree = repl.conversation.tree
    return [*tree.tags, *map(tree.label, tree.turns)]


def path_in(text: str) -> str:
    """Read the one path that follows a command; quotes are for spaces, which need none."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that is part of the name
        return text
    return words[0] if len(words) == 1 else text


def number_in(text: str, low: int, high: int) -> int | None:
    """Read a number between two others; None when it is none, or another."""
    if not text.isdecimal() or len(text) > 9:
        return None
    return int(text) if low <= int(text) <= high else None


def count_of(argument: str, name: str) -> int:
    """Read how often; once when nothing is said.

    Raises:
        UsageError: It is no number.
    """
    if argument and not (argument.isdecimal() and len(argument) < 10):
        raise UsageError(f"/{name} takes a number, not {argument!r}")
    return int(argument or 1)
