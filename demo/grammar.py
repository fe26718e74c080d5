"""Template text: reads the plain-text tables and fills in wordings; knows no story and no chat."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa])~ (?=(\w))")


@dataclass(frozen=True, slots=True)
class Section:
    """One "== name" part of a table: its name and its blocks of lines."""

    name: str
    blocks: tuple[tuple[str, ...], ...]


def read_sections(path: Path) -> dict[str, Section]:
    """Read a table file; raises ValueError where a name comes twice."""
    sections: dict[str, Section] = {}
    for part in re.split(r"^== ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        name = title.strip()
        if name in sections:
            raise ValueError(f"{path.name}: section {name!r} comes twice")
        blocks = tuple(
            tuple(line for line in block.splitlines() if line and not line.startswith("#"))
            for block in re.split(r"\n\s*\n", body.strip())
        )
        sections[name] = Section(name, blocks)
    return sections


def choose(template: str, rng: random.Random) -> str:
    """Pick one wording of each [this|that], innermost first."""
    while match := _CHOICE.search(template):
        wording = rng.choice(match[1].split("|"))
        template = template[: match.start()] + wording + template[match.end() :]
    return template


def fill(template: str, words: dict[str, str], rng: random.Random) -> str:
    """Choose wordings, put words in for {names}, set each "a~" to a or an, mend spaces.

    Raises KeyError where a {name} has no word.
    """
    text = _NAME.sub(lambda match: words[match[1]], choose(template, rng))
    text = _ARTICLE.sub(_article, text)
    text = re.sub(r" {2,}", " ", text).strip()
    return re.sub(r" ([.,?!])(?=\s|$|\")", r"\1", text)


def sentence_case(text: str) -> str:
    """The same text with its first character in upper case."""
    return text[:1].upper() + text[1:]


def _article(match: re.Match[str]) -> str:
    # Every word of our tables that begins with a vowel letter begins with a vowel sound.
    return match[1] + ("n " if match[2].lower() in "aeiou" else " ")
