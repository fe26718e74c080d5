"""Conversations as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from rwkv_cli.render.progress import counted
from rwkv_cli.tree import OPEN, Tree, Turn

_WIDTH = 60


def as_markdown(turns: Sequence[Turn], system: str, name: str) -> str:
    """Write what was said as Markdown."""
    parts = [f"# {name}"] if name else []
    parts += [f"**System**\n\n{system}"] if system else []
    for turn in turns:
        if turn.finish == OPEN:
            parts.append(f"**You** attached {turn.user}")
        else:
            parts += [f"**You**\n\n{turn.user}", f"**Model**\n\n{turn.answer.strip()}"]
    return "\n\n".join(parts) + "\n"


def summary(tree: Tree) -> str:
    """Say in a line what a conversation is about."""
    turns = tree.path()
    first = " ".join(turns[0].user.split()) if turns else "nothing said yet"
    title = tree.name or (first if len(first) <= _WIDTH else first[: _WIDTH - 1] + "\u2026")
    return f"{title}  ({counted(len(turns), 'turn')}, {counted(tree.position(), 'token')})"
