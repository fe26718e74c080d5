"""How a model that thinks marks its thoughts: they stand before the answer, in one pair of tags."""

from __future__ import annotations

OPENS, CLOSES = "<think>", "</think>"


def answer_of(text: str) -> str:
    """Give what was said after the thought; all of it where there is none."""
    text = text.strip()
    if not text.startswith(OPENS):
        return text
    return text.partition(CLOSES)[2].strip()
