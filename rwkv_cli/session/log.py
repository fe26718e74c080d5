"""Where a conversation keeps its turns: what it asks of such a place, and one that forgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from rwkv_cli.engine.state import State
from rwkv_cli.tree import Tree, Turn

# Places of a turn that have a state: after its message, where the answer begins, and after it all.
ASK, END = "ask", "end"

Load = Callable[[Path], State]


class Log(Protocol):
    """Keeps turns and states of one conversation.

    Attributes:
        tree: The turns, always up to date with what was done here.
    """

    tree: Tree

    def add(self, turn: Turn) -> None:
        """Keep a turn, and go there."""

    def draft(self, turn: Turn) -> None:
        """Keep what there is of a turn whose answer is not finished; `add` takes its place."""

    def move(self, turn_id: str) -> None:
        """Go to a turn."""

    def rename(self, name: str) -> None:
        """Give the conversation a name."""

    def tag(self, name: str, turn_id: str) -> None:
        """Give a turn a name."""

    def save_state(self, turn_id: str, point: str, state: State) -> bool:
        """Keep a state of a turn; False where there is no room for it."""

    def load_state(self, turn_id: str, point: str, load: Load) -> State | None:
        """Give a state that was kept; None when it was not, or is damaged."""

    def held(self) -> Mapping[tuple[str, str], int]:
        """Tell which states are kept, with their bytes."""


class MemoryLog:
    """Keeps turns as long as the program runs, and leaves nothing behind.

    Args:
        source: A conversation to go on from: its turns are copied, its states are read.
    """

    def __init__(self, source: Log | None = None) -> None:
        self._source = source
        self.tree = Tree()
        if source is not None:
            there = source.tree
            self.tree = Tree(dict(there.turns), there.head, dict(there.tags), there.name)

    def add(self, turn: Turn) -> None:
        """Keep a turn, and go there."""
        self.tree.add(turn)

    def draft(self, turn: Turn) -> None:
        """Nothing: what is not finished is not kept."""

    def move(self, turn_id: str) -> None:
        """Go to a turn."""
        self.tree.move(turn_id)

    def rename(self, name: str) -> None:
        """Give the conversation a name."""
        self.tree.name = name

    def tag(self, name: str, turn_id: str) -> None:
        """Give a turn a name."""
        self.tree.tags[name] = turn_id

    def save_state(self, turn_id: str, point: str, state: State) -> bool:  # noqa: ARG002
        """Nothing is kept: there is no room."""
        return False

    def load_state(self, turn_id: str, point: str, load: Load) -> State | None:
        """Give a state of the conversation this one goes on from."""
        return self._source.load_state(turn_id, point, load) if self._source else None

    def held(self) -> Mapping[tuple[str, str], int]:
        """Tell which states of that conversation are kept."""
        return self._source.held() if self._source else {}
