"""Commands that go back and forth in a conversation."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from rwkv_cli.cli.slash.command import Command, count_of, places
from rwkv_cli.errors import UsageError
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDERR, note
from rwkv_cli.render.style import dim, shows_styles
from rwkv_cli.render.treeview import HELD, TO_READ, tree_lines
from rwkv_cli.session import again

if TYPE_CHECKING:
    from rwkv_cli.cli.repl import Repl


_LIKE_A_TURN = re.compile(r"[0-9]+[a-z]*|[0-9a-f]{8}")


def _undo(repl: Repl, argument: str) -> None:
    """Take back turns; they stay in the tree."""
    taken = repl.conversation.undo(count_of(argument, "undo"))
    left = counted(len(repl.conversation.turns), "turn")
    note(dim(f"took back {len(taken)}; the conversation has {left} (/redo goes forth again)"))


def _redo(repl: Repl, argument: str) -> None:
    """Go forth again to what was taken back."""
    found = repl.conversation.redo(count_of(argument, "redo"))
    left = counted(len(repl.conversation.turns), "turn")
    note(dim(f"went forth {len(found)}; the conversation has {left}"))


def _goto(repl: Repl, argument: str) -> None:
    """Go to a turn."""
    if not argument:
        raise UsageError("/goto takes a turn, such as /goto 2 or /goto 2b", hint="see /tree")
    _go(repl, repl.conversation.tree.find(argument))


def _go(repl: Repl, turn_id: str) -> None:
    repl.conversation.goto(turn_id)
    note(dim(f"at turn {repl.conversation.tree.label(turn_id)}"))
    repl.show_last()


def _tag(repl: Repl, argument: str) -> None:
    """Give the turn where we are a name."""
    conversation = repl.conversation
    if not argument:
        if not conversation.tree.tags:
            note(dim("no turn has a name yet"))
        for name, turn in conversation.tree.tags.items():
            note(f"  {safe(name)}  turn {conversation.tree.label(turn)}")
        return
    if _LIKE_A_TURN.fullmatch(argument):
        raise UsageError(f"{argument} is how turns are called", hint="a tag needs another name")
    conversation.log.tag(argument, conversation.tree.head)
    note(dim(f"turn {conversation.tree.label(conversation.tree.head)} is called {safe(argument)}"))


def _fork(repl: Repl, argument: str) -> None:
    """Go on in a copy of the conversation; the old one stays as it is."""
    repl.fork(argument)
    note(dim("this is a copy now; the conversation it was made from stays as it is"))


def _tree(repl: Repl, argument: str) -> None:
    """Show all turns, and which of them can be returned to without reading."""
    conversation = repl.conversation
    lines = tree_lines(
        conversation.tree,
        system=conversation.system,
        cost=conversation.costs().__getitem__,
        width=shutil.get_terminal_size().columns,
        seconds_per_token=repl.screen.seconds_per_token,
    )
    if repl.keyboard is not None and lines and shows_styles(STDERR):
        legend = f"arrows, Enter, Esc   {HELD} held   {TO_READ} to read again"
        chosen = repl.keyboard.pick(lines, conversation.tree.head, legend)
        if chosen is not None and chosen != conversation.tree.head:
            _go(repl, chosen)
        return
    for line in lines:
        note(line.text)
    legend = f"{HELD} state held   {TO_READ} tokens to read again   /goto TURN goes there"
    note(dim(legend if lines else "nothing was said yet"))


def _peek(repl: Repl, argument: str) -> None:
    """Ask beside the conversation: neither question nor answer is kept."""
    if not argument:
        raise UsageError("/peek takes a question")
    with repl.screen.reading() as progress:
        reply = repl.conversation.peek(argument, progress)
    repl.show(reply)
    if not repl.screen.quiet:
        note(dim("asked beside the conversation; nothing of it is kept"))


def _rewind(repl: Repl, argument: str) -> None:
    """Go back into the middle of the last answer, and write on from there, differently."""
    if not argument:
        raise UsageError('/rewind takes 12w (words), 40t (tokens) or "some words" of the answer')
    with repl.screen.reading() as progress:
        reply = again.rewind(repl.conversation, argument, progress)
    repl.show(reply)


COMMANDS = {
    "undo": Command(_undo, "[N]", "take back the last turn, or the last N"),
    "redo": Command(_redo, "[N]", "go forth again"),
    "goto": Command(_goto, "TURN", "go to a turn: 2, 2b, a tag", places),
    "tag": Command(_tag, "[NAME]", "give this turn a name; alone it lists them"),
    "fork": Command(_fork, "[NAME]", "go on in a copy"),
    "tree": Command(_tree, "", "all turns, to go about in with the arrow keys"),
    "peek": Command(_peek, "QUESTION", "ask without leaving a trace"),
    "rewind": Command(_rewind, '12w|40t|"words"', "back into the answer, and on from there"),
}
