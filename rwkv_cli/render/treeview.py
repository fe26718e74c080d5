"""A conversation's tree as lines of text. A straight chain does not indent, however long it is:
only where answers stand beside each other does the tree grow to the right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.wrap import columns, cut
from rwkv_cli.tree import BEGINNING, OPEN, Tree, Turn

HELD, TO_READ, HERE = "\u2713", "\u00b7", "\u25c0"

_MARKED = 9  # characters in a column at most: a letter and the marks on it that are shown


@dataclass(frozen=True, slots=True)
class TreeLine:
    """A line of the picture.

    Attributes:
        turn: The turn it stands for; empty for the beginning.
        text: What is shown.
    """

    turn: str
    text: str


def tree_lines(
    tree: Tree,
    *,
    system: str,
    cost: Callable[[str], int],
    width: int,
    seconds_per_token: float | None = None,
) -> list[TreeLine]:
    """Draw a tree.

    Args:
        tree: The turns.
        system: Instruction at the start.
        cost: Tokens that going to a turn would read; 0 where its state is held.
        width: Columns there are.
        seconds_per_token: How long reading one takes, to say what going back costs.
    """
    lines = [TreeLine(BEGINNING, _fitted("0 system  ", system, "", width))] if system else []
    following = tree.following()
    waiting = [(turn, 0, "") for turn in reversed(following[BEGINNING])]
    while waiting:
        turn, indent, asked = waiting.pop()
        after = following[turn.id]
        label = tree.label(turn.id)
        gap = "  " * indent
        tail = f"  {_marks(tree, turn, cost(turn.id), seconds_per_token)}"
        if turn.finish == OPEN:
            lines.append(TreeLine(turn.id, _fitted(f"{gap}{label} file  ", turn.user, tail, width)))
        else:
            if turn.user != asked:
                head = f"{gap}{label} you   "
                lines.append(TreeLine(turn.id, _fitted(head, turn.user, "", width)))
            head = f"{gap}{label} rwkv  "
            lines.append(TreeLine(turn.id, _fitted(head, turn.answer, tail, width)))
        deeper = indent + (len(after) > 1)
        user = ""
        rows = []
        for child in after:
            rows.append((child, deeper, user))
            user = child.user
        waiting += reversed(rows)
    return lines


def _marks(tree: Tree, turn: Turn, cost: int, seconds: float | None) -> str:
    """Say what a turn is called, how long it is, what going there costs, whether we are there."""
    tags = [f"#{safe(name)}" for name, to in tree.tags.items() if to == turn.id]
    again = f"{TO_READ} {cost}"
    if cost and seconds:
        again += f" (~{cost * seconds:.0f} s)"
    here = [HERE] if tree.head == turn.id else []
    return " ".join([*tags, counted(turn.count, "token"), again if cost else HELD, *here])


def _fitted(head: str, text: str, tail: str, width: int) -> str:
    """Put the beginning of a text between head and tail, as much as fits."""
    room = max(8, width - 1 - columns(head) - columns(tail))
    start = " ".join(text.split(None, room + 1))  # as many words as there are columns, and the rest
    return head + cut(safe(start[: _MARKED * (room + 1)]), room) + tail
