"""Shows where in a text something is wrong: the text, and carets below the place."""

from __future__ import annotations

from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.wrap import columns


def pointed(text: str, span: tuple[int, int]) -> tuple[str, str]:
    """Give the two lines.

    Args:
        text: What was written; from outside.
        span: Where the wrong part begins and ends.
    """
    begin, end = span
    before, wrong = columns(safe(text[:begin])), columns(safe(text[begin:end]))
    return safe(text), " " * before + "^" * max(1, wrong)
