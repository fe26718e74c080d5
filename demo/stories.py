"""Stories: walks a plot slot by slot with one cast; knows nothing of chats or tokens."""

from __future__ import annotations

import random
from pathlib import Path

from demo.cast import HERO_KINDS, draw_words
from demo.grammar import Section, fill, read_sections, sentence_case

PARAGRAPH = "//"
FEWEST_WORDS, MOST_WORDS = 80, 220
SHARE_OF_ONCE = 0.7
_FRAME = ("opening", "opening other", "trait", "ending", "short", "short ending")


class Stories:
    """Writes stories from the plots of a table file."""

    def __init__(self, path: Path) -> None:
        """Read the plots; raises ValueError for a damaged table."""
        self._sections = read_sections(path)
        self.plots = [name for name in self._sections if name not in _FRAME]

    def write(self, rng: random.Random, plot: str | None = None) -> str:
        """A story of 80 to 220 words, its paragraphs parted by line breaks."""
        while True:
            text = self._attempt(rng, plot or rng.choice(self.plots))
            if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS:
                return text

    def write_short(self, rng: random.Random, kind: str | None = None) -> str:
        """A story of three to six sentences about the given kind of hero, in one paragraph."""
        words = draw_words(rng, kind or rng.choice(HERO_KINDS))
        section = self._sections["short"]
        lines = [rng.choice(section.blocks[0]), rng.choice(section.blocks[1])]
        lines.append(rng.choice(self._sections["short ending"].blocks[0]))
        return " ".join(fill(line, words, rng) for line in lines)

    def _attempt(self, rng: random.Random, plot: str) -> str:
        words = draw_words(rng)
        section = self._sections[plot]
        slots = _bind(section, words, rng)
        opening = "opening" if rng.random() < SHARE_OF_ONCE else "opening other"
        first = [rng.choice(self._sections[opening].blocks[0])]
        if rng.random() < 0.6:
            first.append(rng.choice(self._sections["trait"].blocks[0]))
        paragraphs = [first]
        for slot in slots:
            if slot[0] == PARAGRAPH:
                paragraphs.append([])
            paragraphs[-1].append(rng.choice([line for line in slot if line != PARAGRAPH]))
        if rng.random() < 0.75:
            paragraphs[-1].append(rng.choice(self._sections["ending"].blocks[0]))
        gap = "\n" if rng.random() < 0.85 else "\n\n"
        return gap.join(
            " ".join(sentence_case(fill(line, words, rng)) for line in lines)
            for lines in paragraphs
        )


def _bind(section: Section, words: dict[str, str], rng: random.Random) -> list[tuple[str, ...]]:
    """Draw the plot's "let" words into `words`; the slots that are left."""
    slots = []
    for block in section.blocks:
        lines = []
        for line in block:
            if line.startswith("let "):
                names, _, values = line[4:].partition("=")
                value = rng.choice(values.split("|"))
                keys = [name.strip() for name in names.split(",")]
                parts = [part.strip() for part in value.split(",")]
                words.update(zip(keys, parts, strict=True))
            else:
                lines.append(line)
        if lines:
            slots.append(tuple(lines))
    return slots
