"""Commands about whole conversations: new, named, listed, resumed, exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.cli.chatfiles import FORMATS, summary
from rwkv_cli.cli.slash.command import Command, path_in, places
from rwkv_cli.errors import UsageError
from rwkv_cli.files import write_atomic
from rwkv_cli.places import expanded
from rwkv_cli.render.clipboard import copy
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.text.thoughts import answer_of
from rwkv_cli.tree import OPEN

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl

_LISTED = 20
_CODE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


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
    """Write the conversation to a file, in the form that is named or that the file's name tells."""
    first, _, rest = argument.partition(" ")
    kind, name = (first, path_in(rest)) if first in FORMATS else ("", path_in(argument))
    suffix = Path(name).suffix.lstrip(".")
    kind = kind or (suffix if suffix in FORMATS else "md")
    path = Path(expanded(name or f"{repl.begin.id}.{'json' if kind == 'openai' else kind}"))
    if path.exists():
        raise UsageError(f"{path} is there already", hint="/export takes another name")
    text = FORMATS[kind](repl.begin, repl.conversation.tree)
    write_atomic(path, [text.encode("utf-8", "surrogateescape")], private=True)
    note(dim(f"written to {safe(str(path))}"))


def _copy(repl: Repl, argument: str) -> None:
    """Put an answer, or the code in it, into the clipboard."""
    conversation = repl.conversation
    named = argument if argument not in ("", "code") else ""
    way = conversation.tree.path(conversation.tree.find(named)) if named else conversation.turns
    turn = next((turn for turn in reversed(way) if turn.finish != OPEN), None)
    if turn is None:
        raise UsageError("there is no answer yet")
    text = answer_of(turn.answer)
    if argument == "code":
        blocks = _CODE.findall(text)
        if not blocks:
            raise UsageError("there is no code in the answer")
        text = blocks[-1]
    note(dim(f"{len(text):,} characters copied by {copy(text)}"))


def _copyable(repl: Repl) -> list[str]:
    return ["code", *places(repl)]


def _ids(repl: Repl) -> list[str]:
    return repl.library.ids()


COMMANDS = {
    "new": Command(_new, "[NAME]", "begin a new conversation"),
    "name": Command(_name, "TEXT", "give this conversation a name"),
    "chats": Command(_chats, "", "list the conversations"),
    "resume": Command(_resume, "ID|NAME", "go on with another conversation", _ids),
    "export": Command(_export, "[md|json|jsonl|openai] [FILE]", "write the conversation to a file"),
    "copy": Command(_copy, "[TURN|code]", "put the answer into the clipboard", _copyable),
    "exit": Command(_exit, "", "leave; the conversation is kept"),
}
