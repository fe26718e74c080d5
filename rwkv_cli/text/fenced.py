"""Finds the code in an answer: what stands in its first fenced block. Knows bytes only."""

from __future__ import annotations

import re

# Models indent the blocks of list items by any amount, where CommonMark (4.5) allows three blanks.
# Behind backticks no other may follow in the line: that is code within a sentence.
_OPENS = re.compile(rb"^([ \t]*)(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*(?:\n|\Z)", re.MULTILINE)


def first_block(text: bytes) -> bytes | None:
    r"""Give the lines between the first fence (``` or ~~~) and the one that closes it, or the end.

    Each ends as it does in the text, and begins without the blanks that stand before the fence.

    Returns:
        None when the text has no fence.

    >>> first_block(b"Like so:\n```sh\nls -l\n```\nDone.")
    b'ls -l\n'
    """
    opening = _OPENS.search(text)
    if opening is None:
        return None
    indent, fence = opening[1], opening[2]
    closing = rb"^[ \t]*%c{%d,}[ \t\r]*$" % (fence[0], len(fence))
    rest = text[opening.end() :]
    end = re.search(closing, rest, re.MULTILINE)
    lines = (rest[: end.start()] if end else rest).split(b"\n")
    return b"\n".join(_without(indent, line) for line in lines)


def _without(indent: bytes, line: bytes) -> bytes:
    """Take blanks from the beginning of a line, no more than there are."""
    count = 0
    while count < len(indent) and line[count : count + 1] in (b" ", b"\t"):
        count += 1
    return line[count:]
