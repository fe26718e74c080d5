"""Commands that show things."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rwkv_cli.cli.slash.command import Command, path_in
from rwkv_cli.errors import UsageError
from rwkv_cli.places import expanded
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe, safe_lines
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.session.transcript import with_transcript

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl


def _stats(repl: Repl, argument: str) -> None:
    """Show the figures of the last answer, and from now on those of every answer."""
    screen = repl.screen
    if argument not in ("", "on", "off"):
        raise UsageError("/stats takes on or off")
    screen.footer = argument != "off"
    shown = screen.figures or "no answer yet"
    note(dim(shown if screen.footer else "figures are off"))


def _md(repl: Repl, argument: str) -> None:
    """Render Markdown and fold thoughts, or show the text as it comes."""
    if argument not in ("", "on", "off"):
        raise UsageError("/md takes on or off")
    repl.screen.markdown = argument == "on" if argument else not repl.screen.markdown
    note(dim("Markdown is rendered" if repl.screen.markdown else "answers are shown as they come"))


def _on_off(repl: Repl) -> list[str]:
    return ["on", "off"]


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
    with repl.screen.reading() as progress:
        state = conversation.prepare(progress)
    tokens = counted(conversation.position, "token")
    note(f"  {tokens} read, state {state.nbytes / 1e6:.1f} MB at any length")
    note(f"  {safe(conversation.model.identity.arch)}, {conversation.model.identity.numerics}")


def _save(repl: Repl, argument: str) -> None:
    """Save the state to a file."""
    if not argument:
        raise UsageError("/save takes a file name, such as /save trip.rwkvstate")
    path = expanded(path_in(argument))
    with repl.screen.reading() as progress:
        state = repl.conversation.prepare(progress)
    with_transcript(repl.conversation, state).save(path)
    shown = safe(shlex.quote(str(path)))
    note(dim(f'saved; go on with: rwkv generate --state {shown} --chat "your question"'))


COMMANDS = {
    "stats": Command(_stats, "[on|off]", "figures of the answers: speed, tokens, state", _on_off),
    "md": Command(_md, "[on|off]", "render Markdown, or show the text as it comes", _on_off),
    "raw": Command(_raw, "", "the context as the model reads it"),
    "state": Command(
        _state, "[save FILE]", "what the state is; save it to a file", lambda _: ["save"]
    ),
    "save": Command(_save, "FILE", "save the state to a file"),
}
