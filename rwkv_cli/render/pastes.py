"""Long pastes in the input line, folded to a mark that says how long they are. Knows no screen."""

from __future__ import annotations

import re

LONGEST = 20  # lines that stay as they are

_MARK = re.compile(r"\[pasted [0-9,]+ lines(?:, no\. [0-9]+)?\]")


class Pastes:
    """Remembers what its marks stand for."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def fold(self, text: str) -> str:
        """Give what stands in the line for a paste: itself, when it is short."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.removesuffix("\n").count("\n") + 1
        if lines <= LONGEST:
            return text
        mark = f"[pasted {lines:,} lines]"
        number = 1
        while self._texts.get(mark, text) != text:
            number += 1
            mark = f"[pasted {lines:,} lines, no. {number}]"
        self._texts[mark] = text
        return mark

    def unfold(self, text: str) -> str:
        """Put the pastes in the place of their marks."""
        return _MARK.sub(lambda match: self._texts.get(match[0], match[0]), text)
