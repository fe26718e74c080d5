"""A conversation as a tree of turns: plain data. Knows no model, no disk and no screen.

A turn is never changed. Answering again, editing, going on with a cut answer: each makes another
turn beside it, so everything that was ever said can be returned to. What a turn added to the
context is its `prompt` and its `reply`, in tokens; the tokens of the turns from the beginning to
one of them are all that is needed to make its state again.
"""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from rwkv_cli.errors import NotFoundError, UsageError

BEGINNING = ""  # stands for the place before the first turn
OPEN = "open"  # how a turn ends that is material for the next message, without an answer
EDITED = "edited"  # how an answer ends that the user wrote or changed


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange.

    Attributes:
        id: Eight hexadecimal digits, its name in the conversation.
        parent: The turn before it; empty after the beginning.
        user: The message as it was typed, or the name of the material.
        answer: The answer as it was shown.
        prompt: Tokens that were read: what closes the turn before, and the message.
        reply: Tokens of the answer.
        finish: Why the answer ended (see `generation`), or OPEN, or EDITED.
        sampler: How it was drawn, as in `Attachments.sampler`; empty when it was not.
        created: When, ISO 8601 in UTC. For people: nothing is decided by it.
    """

    id: str
    parent: str
    user: str
    answer: str
    prompt: Sequence[int]
    reply: Sequence[int]
    finish: str
    sampler: str = ""
    created: str = ""

    @property
    def count(self) -> int:
        """Tokens it added to the context."""
        return len(self.prompt) + len(self.reply)


def new_id() -> str:
    """Make up the name of a turn or a conversation."""
    return secrets.token_hex(4)


@dataclass(slots=True)
class Tree:
    """All turns of a conversation, and where in it we are.

    Attributes:
        turns: By name, in the order they were made.
        head: The turn after which the next message goes; BEGINNING before the first.
        tags: Names that were given to turns, to the turn.
        name: What the user calls the conversation; empty for nothing.
    """

    turns: dict[str, Turn] = field(default_factory=dict)
    head: str = BEGINNING
    tags: dict[str, str] = field(default_factory=dict)
    name: str = ""
    _depths: dict[str, int] = field(init=False, repr=False, compare=False)
    _positions: dict[str, int] = field(init=False, repr=False, compare=False)
    _levels: dict[int, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._depths, self._positions, self._levels = {BEGINNING: 0}, {BEGINNING: 0}, {}
        for turn in self.turns.values():  # parents come before those that follow them
            self._place(turn)

    def add(self, turn: Turn) -> None:
        """Take in a turn and go there.

        Raises:
            UsageError: The turn before it is not in the tree, or its name is taken.
        """
        if turn.parent and turn.parent not in self.turns:
            raise UsageError(f"turn {turn.id} follows {turn.parent}, which is not there")
        if turn.id in self.turns:
            raise UsageError(f"there is a turn {turn.id} already")
        self.turns[turn.id] = turn
        self._place(turn)
        self.head = turn.id

    def _place(self, turn: Turn) -> None:
        """Remember where a turn stands: a picture of the tree asks that of every one of them."""
        depth = 1 + self._depths[turn.parent]
        self._depths[turn.id] = depth
        self._positions[turn.id] = self._positions[turn.parent] + turn.count
        self._levels.setdefault(depth, []).append(turn.id)

    def move(self, turn: str) -> None:
        """Go to a turn, or to BEGINNING.

        Raises:
            NotFoundError: There is no such turn.
        """
        if turn and turn not in self.turns:
            raise NotFoundError(f"there is no turn {turn}")
        self.head = turn

    def path(self, turn: str | None = None) -> list[Turn]:
        """List the turns from the beginning to one of them, by default to the head."""
        found = []
        at = self.head if turn is None else turn
        while at:
            found.append(self.turns[at])
            at = self.turns[at].parent
        return found[::-1]

    def tokens(self, turn: str | None = None) -> array[int]:
        """Give all tokens of the context after a turn, by default after the head."""
        ids = array("I")
        for step in self.path(turn):
            ids.extend(step.prompt)
            ids.extend(step.reply)
        return ids

    def position(self, turn: str | None = None) -> int:
        """Count the tokens of the context after a turn."""
        return self._positions[self.head if turn is None else turn]

    def children(self, turn: str) -> list[Turn]:
        """List the turns that follow one, oldest first."""
        return [other for other in self.turns.values() if other.parent == turn]

    def following(self) -> dict[str, list[Turn]]:
        """Give the children of every turn, and of BEGINNING."""
        found: dict[str, list[Turn]] = {turn: [] for turn in (BEGINNING, *self.turns)}
        for turn in self.turns.values():
            found[turn.parent].append(turn)
        return found

    def siblings(self, turn: str) -> list[Turn]:
        """List the turns that follow the same turn, oldest first, this one among them."""
        return self.children(self.turns[turn].parent)

    def label(self, turn: str) -> str:
        """Name a turn for people: its number, with a letter where the tree has others of that
        number, such as 2 or 2b.
        """
        if not turn:
            return "0"
        number = self.depth(turn)
        same = self._levels[number]
        return str(number) if len(same) == 1 else f"{number}{_letters(same.index(turn))}"

    def depth(self, turn: str) -> int:
        """Count the turns from the beginning to one of them."""
        return self._depths[turn]

    def find(self, text: str) -> str:
        """Find the turn that people call so: a tag, a label such as 2 or 2b (of the way to the
        head before any other), the beginning of its name; 0 is the beginning.

        Raises:
            NotFoundError: There is none.
            UsageError: There are several.
        """
        if text in self.tags:
            return self.tags[text]
        if text == "0":
            return BEGINNING
        way = self.path()
        if text.isdecimal() and len(text) < 10 and 0 < int(text) <= len(way):
            return way[int(text) - 1].id
        found = [t for t in self.turns if self.label(t) == text or t == text]
        found = found or [t for t in self.turns if len(text) > 2 and t.startswith(text)]
        if len(found) > 1:
            names = ", ".join(f"{self.label(t)} is {t}" for t in found[:4])
            raise UsageError(f"there are {len(found)} turns called {text} ({names})")
        if not found:
            raise NotFoundError(f"there is no turn {text!r}", hint="/tree shows them all")
        return found[0]


def _letters(index: int) -> str:
    """Count in letters: a to z, then aa, ab and so on."""
    text = ""
    while index >= 0:
        index, digit = divmod(index, 26)
        text = chr(ord("a") + digit) + text
        index -= 1
    return text
