"""Commands that give the model something to read."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rwkv_cli.cli.prompt import gather
from rwkv_cli.cli.slash.command import Command
from rwkv_cli.errors import UsageError
from rwkv_cli.places import expanded
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl


def _file(repl: Repl, argument: str) -> None:
    """Read files, as the beginning of the next message."""
    try:
        names = shlex.split(argument)
    except ValueError as error:
        raise UsageError(f"/file: {error}") from error
    if not names:
        raise UsageError("/file takes file names, such as /file notes.txt")
    paths = [str(expanded(name)) for name in names]
    gather((), paths)  # reports the missing ones before any is read
    for path in paths:
        repl.attach(path)


def _paste(repl: Repl, argument: str) -> None:
    """Take a text that is typed or pasted as the beginning of the next message."""
    if argument:
        raise UsageError("/paste takes nothing: it waits for the text")
    note(dim("paste or type it; Enter ends it, Ctrl-D leaves it"))
    text = repl.type_in("", "paste> ")
    if text is None or not text.strip():
        note(dim("nothing was read"))
        return
    repl.read_in("paste", [text.encode("utf-8", "surrogateescape")])


COMMANDS = {
    "file": Command(_file, "PATH...", "read files; ask about them next"),
    "paste": Command(_paste, "", "read a pasted text; ask about it next"),
}
