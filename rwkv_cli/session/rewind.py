"""How far back inside an answer: by words, by tokens, or to a phrase. Knows bytes and no model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rwkv_cli.errors import UsageError

_AMOUNT = re.compile(r"([0-9]{1,9})\s*(w|t|words?|tokens?)?")
_WORD = re.compile(rb"\S+")


def cut_reply(pieces: Sequence[bytes], amount: str) -> tuple[int, bytes]:
    """Find where an answer is cut.

    Args:
        pieces: The bytes of its tokens.
        amount: "12w" or "12" words, "40t" tokens, or a phrase in quotes, to before its last
            occurrence.

    Returns:
        How many tokens stay whole, and the bytes of the next one that stay too.

    Raises:
        UsageError: The answer is not so long, lacks the phrase, or the amount makes no sense.
    """
    text = b"".join(pieces)
    match = _AMOUNT.fullmatch(amount.strip())
    if match and (match[2] or "w").startswith("t"):
        count = int(match[1])
        if not 1 <= count <= len(pieces):
            raise UsageError(f"the answer has {len(pieces)} tokens, not {count}")
        return len(pieces) - count, b""
    at = _before_words(text, int(match[1])) if match else _before_phrase(text, amount)
    return _split(pieces, at)


def _before_words(text: bytes, count: int) -> int:
    """Find the end of the text before the last words."""
    words = list(_WORD.finditer(text))
    if not 1 <= count <= len(words):
        raise UsageError(f"the answer has {len(words)} words, not {count}")
    return words[-count - 1].end() if count < len(words) else 0


def _before_phrase(text: bytes, phrase: str) -> int:
    """Find the end of the text before a phrase."""
    wanted = phrase.strip()
    if len(wanted) > 1 and wanted[0] in "\"'" and wanted[-1] == wanted[0]:
        wanted = wanted[1:-1]
    if not wanted:
        raise UsageError('/rewind takes 12w, 40t or "some words" of the answer')
    at = text.rfind(wanted.encode("utf-8", "surrogateescape"))
    if at < 0:
        raise UsageError(f"the answer does not say {wanted!r}")
    return len(text[:at].rstrip(b" "))


def _split(pieces: Sequence[bytes], at: int) -> tuple[int, bytes]:
    """Find the token that a place lies in."""
    start = 0
    for index, piece in enumerate(pieces):
        if start + len(piece) > at:
            return index, piece[: at - start]
        start += len(piece)
    return len(pieces), b""
