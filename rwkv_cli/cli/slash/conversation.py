"""Commands about whole conversations: new, named, listed, resumed, exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.cli.chatfiles import as_markdown, summary
from rwkv_cli.cli.slash.command import Command
from rwkv_cli.errors import UsageError
from rwkv_cli.files import write_atomic
from rwkv_cli.places import expanded
from rwkv_cli.render.progress import dim
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl

_LISTED = 20


def _exit(repl: Repl, argument: str) -> None:
    """Leave."""
    repl.leaving = True


def _new(repl: Repl, argument: str) -> None:
    """Begin a new conversation; the old one stays where it is."""
    repl.begin_anew(repl.conversation.system)
    if argument:
        repl.conversation.log.rename(argument)
    note(dim("new conversation"))


def _name(repl: Repl, argument: str) -> None:
    """Give the conversation a name."""
    if not argument:
        raise UsageError("/name takes a name, such as /name trip to Kyoto")
    repl.conversation.log.rename(argument)
    note(dim(f"this conversation is called {safe(argument)}"))


def _chats(repl: Repl, argument: str) -> None:
    """List the conversations, the newest first."""
    rows = repl.library.recent(_LISTED)
    for log in rows:
        note(f"  {log.id}  {safe(summary(log.tree))}")
    note(dim("/resume ID or NAME goes on with one") if rows else dim("there is none yet"))


def _resume(repl: Repl, argument: str) -> None:
    """Go on with another conversation."""
    if not argument:
        raise UsageError("/resume takes an ID or a name", hint="/chats lists the conversations")
    repl.switch(repl.library.find(argument))


def _export(repl: Repl, argument: str) -> None:
    """Write the conversation to a file, as Markdown."""
    if not argument:
        raise UsageError("/export takes a file name, such as /export trip.md")
    conversation = repl.conversation
    path = Path(expanded(argument))
    text = as_markdown(conversation.turns, conversation.system, conversation.tree.name)
    write_atomic(path, [text.encode("utf-8", "surrogateescape")])
    note(dim(f"written to {safe(str(path))}"))


COMMANDS = {
    "new": Command(_new, "[NAME]", "begin a new conversation"),
    "name": Command(_name, "TEXT", "give this conversation a name"),
    "chats": Command(_chats, "", "list the conversations"),
    "resume": Command(_resume, "ID|NAME", "go on with another conversation"),
    "export": Command(_export, "FILE", "write the conversation as Markdown"),
    "exit": Command(_exit, "", "leave; the conversation is kept"),
}
