"""Chats: short User/Assistant exchanges from the table; knows stories only as answers."""

from __future__ import annotations

import random
from pathlib import Path

from demo.cast import HERO_KINDS
from demo.grammar import fill, read_sections, sentence_case
from demo.stories import Stories

SHARE_OF_SYSTEM = 0.08
# How often each kind of turn is drawn; the kinds are the first words of the table's names.
KINDS = {"tool": 46, "talk": 14, "self": 12, "story": 12, "fact": 8, "sum": 4, "unknown": 9}
_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip


class Chats:
    """Writes chats from the questions and answers of a table file."""

    def __init__(self, path: Path, stories: Stories) -> None:
        """Read the table; raises ValueError for a damaged one."""
        self._sections = read_sections(path)
        self._stories = stories
        self._entries = {
            kind: [name for name in self._sections if name.startswith(kind + " ")] for kind in KINDS
        }

    def entries(self, kind: str) -> list[str]:
        """The names of the table's entries of one kind."""
        return list(self._entries[kind])

    def write(self, rng: random.Random) -> str:
        """A chat of one to four turns, perhaps after a system message."""
        messages = []
        if rng.random() < SHARE_OF_SYSTEM:
            messages.append("System: " + rng.choice(self._sections["system"].blocks[0]))
        turns = rng.choices((1, 2, 3, 4), weights=(50, 25, 15, 10))[0]
        for turn in range(turns):
            question, answer = self._first_turn(rng) if turn == 0 else self.turn(rng)
            messages += [f"User: {question}", f"Assistant: {answer}"]
        return "\n\n".join(messages)

    def turn(self, rng: random.Random, kind: str | None = None) -> tuple[str, str]:
        """A question as a user may type it, and its answer."""
        kind = kind or rng.choices(tuple(KINDS), weights=tuple(KINDS.values()))[0]
        if kind == "story":
            question, answer = self._story(rng)
        elif kind == "sum":
            question, answer = self._sum(rng)
        else:
            question, answer = self.ask(rng.choice(self._entries[kind]), rng)
        return _as_typed(question, rng), answer

    def ask(self, entry: str, rng: random.Random) -> tuple[str, str]:
        """One of the entry's questions, in lower case, and one of its answers."""
        blocks = self._sections[entry].blocks
        words: dict[str, str] = {}
        if entry.startswith("fact "):
            left, _, right = rng.choice(blocks[0]).partition(" = ")
            words = {"a": left, "A": sentence_case(left), "b": right}
            blocks = blocks[1:]
        question, answer = (rng.choice(block) for block in blocks)
        return fill(question, words, rng), fill(answer, words, rng)

    def _first_turn(self, rng: random.Random) -> tuple[str, str]:
        if rng.random() < 0.1:
            question, answer = self.ask("talk hello", rng)
            return _as_typed(question, rng), answer
        return self.turn(rng)

    def _story(self, rng: random.Random) -> tuple[str, str]:
        if rng.random() < 0.25:
            question = self._pick("story any", {}, rng)
            return question, self._stories.write_short(rng)
        kind = rng.choice(HERO_KINDS)
        return self._pick("story question", {"kind": kind}, rng), self._stories.write_short(
            rng, kind
        )

    def _sum(self, rng: random.Random) -> tuple[str, str]:
        if rng.random() < 0.2:
            last = rng.randint(3, 20)
            name = rng.choice((str(last), _NUMBERS[last - 1]))
            question = self._pick("count question", {"n": name}, rng)
            return question, sentence_case(", ".join(_NUMBERS[:last])) + "."
        left, right = rng.randint(1, 10), rng.randint(1, 10)
        words = {"a": str(left), "b": str(right), "c": str(left + right)}
        answer = self._pick("add answer", words, rng)
        return self._pick("add question", words, rng), answer

    def _pick(self, entry: str, words: dict[str, str], rng: random.Random) -> str:
        return fill(rng.choice(self._sections[entry].blocks[0]), words, rng)


def _as_typed(question: str, rng: random.Random) -> str:
    """The question as different people type it: capital or not, with its last mark or not."""
    chance = rng.random()
    if chance < 0.55:
        return sentence_case(question)
    if chance < 0.7:
        return sentence_case(question).rstrip("?!.")
    if chance < 0.83:
        return question.lower()
    if chance < 0.99:
        return question.lower().rstrip("?!.")
    return question.upper()
