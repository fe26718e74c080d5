"""Commands that show things."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.cli.slash.command import Command
from rwkv_cli.errors import UsageError
from rwkv_cli.render.progress import counted, dim
from rwkv_cli.render.sanitize import safe, safe_lines
from rwkv_cli.render.streams import note
from rwkv_cli.session.transcript import with_transcript

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl


def _stats(repl: Repl, argument: str) -> None:
    """Show the figures of the last answer, and from now on those of every answer."""
    repl.stats = argument != "off"
    note(dim(repl.figures or "no answer yet") if repl.stats else dim("figures are off"))


def _raw(repl: Repl, argument: str) -> None:
    """Show the context as the model reads it."""
    conversation = repl.conversation
    text = conversation.text_of(conversation.tree.tokens())
    note(safe_lines(text.decode("utf-8", "replace")))


def _state(repl: Repl, argument: str) -> None:
    """Show what the state is, or save it."""
    conversation = repl.conversation
    word, _, name = argument.partition(" ")
    if word == "save":
        _save(repl, name.strip())
        return
    if argument:
        raise UsageError("/state takes nothing, or: save FILE")
    with repl.reading() as progress:
        state = conversation.prepare(progress)
    tokens = counted(conversation.position, "token")
    note(f"  {tokens} read, state {state.nbytes / 1e6:.1f} MB at any length")
    note(f"  {safe(conversation.model.identity.arch)}, {conversation.model.identity.numerics}")


def _save(repl: Repl, argument: str) -> None:
    """Save the state to a file."""
    if not argument:
        raise UsageError("/save takes a file name, such as /save trip.rwkvstate")
    name = os.path.expanduser(argument)  # noqa: PTH111 - pathlib raises where nobody has that name
    with repl.reading() as progress:
        state = repl.conversation.prepare(progress)
    with_transcript(repl.conversation, state).save(Path(name))
    shown = safe(shlex.quote(name))
    note(dim(f'saved; go on with: rwkv generate --state {shown} --chat "your question"'))


COMMANDS = {
    "stats": Command(_stats, "[off]", "figures of the answers: speed, tokens, state"),
    "raw": Command(_raw, "", "the context as the model reads it"),
    "state": Command(_state, "[save FILE]", "what the state is; save it to a file"),
    "save": Command(_save, "FILE", "save the state to a file"),
}
