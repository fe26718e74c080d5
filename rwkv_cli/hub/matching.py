"""When two names of models mean the same. Case does not matter, nor whether `_`, `-` or `.` stands
between words, nor "1b5" for "1.5b".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SIZE = re.compile(r"(?<![a-z0-9])(\d{1,3})b(\d)(?![a-z0-9])")


def plain(name: str) -> str:
    """Reduce a name to what people mean by it."""
    text = _SIZE.sub(r"\1.\2b", name.lower().replace("_", "-"))
    return text.replace(".", "-").strip("-")


def same_name(one: str, other: str) -> bool:
    """Tell whether two names mean the same."""
    return plain(one) == plain(other)


def matching(name: str, names: Iterable[str]) -> list[str]:
    """Find the names that one may be meant for: those equal to it; else those that have its words;
    else those it is any part of; else those whose words its words begin.
    """
    wanted, known = plain(name), {one: plain(one) for one in names}
    for fits in (_equals, _has_words, _has_part, _has_beginnings):
        found = [one for one, text in known.items() if wanted and fits(wanted, text)]
        if found:
            return found
    return []


def _equals(wanted: str, stem: str) -> bool:
    return wanted == stem


def _has_words(wanted: str, stem: str) -> bool:
    return f"-{wanted}-" in f"-{stem}-"


def _has_part(wanted: str, stem: str) -> bool:
    return wanted in stem


def _has_beginnings(wanted: str, stem: str) -> bool:
    """Tell whether the words of a name begin words of another, in order: g1-1.5b means g1k-1.5b."""
    words = iter(stem.split("-"))
    return all(any(word.startswith(part) for word in words) for part in wanted.split("-"))
