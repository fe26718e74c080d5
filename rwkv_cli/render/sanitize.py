"""Makes text from strangers safe to show: nothing it holds can drive a terminal.
Knows no screen.
"""

from __future__ import annotations

import unicodedata

# Marks that reorder the line they stand in, or hide in it: bidirectional controls, line
# separators, tags.
_INVISIBLE = frozenset(
    (
        *range(0x202A, 0x202F),
        *range(0x2066, 0x2070),
        *range(0xFFF9, 0xFFFC),
        *range(0xE0000, 0xE0080),
        *(0x200E, 0x200F, 0x061C, 0x180E, 0x2028, 0x2029, 0xFEFF),
    )
)
_COMBINING_LIMIT = 8  # marks on one letter: no script needs more


class Sanitizer:
    """Replaces what could drive a terminal, character by character, across the
    pieces of a stream.
    """

    def __init__(self) -> None:
        self._combining = 0

    def feed(self, text: str) -> str:
        """Give the text with every control made visible; newline and tab stay."""
        if text.isascii() and text.isprintable():
            self._combining = 0
            return text
        return "".join(self._shown(char) for char in text)

    def _shown(self, char: str) -> str:
        code = ord(char)
        if unicodedata.category(char).startswith("M"):
            self._combining += 1
            return char if self._combining <= _COMBINING_LIMIT else ""
        self._combining = 0
        if char in "\n\t":
            return char
        if code < 0x20:
            return chr(0x2400 + code)
        if code == 0x7F:
            return "\u2421"
        if 0x80 <= code < 0xA0 or code in _INVISIBLE or 0xD800 <= code < 0xE000:
            return f"<U+{code:04X}>"
        return char


def safe(text: str) -> str:
    """Make a name, a path or an error message safe to show on one line."""
    return Sanitizer().feed(text).replace("\n", "\u240a").replace("\t", "\u2409")


def safe_lines(text: str) -> str:
    """Make a text of several lines safe to show."""
    return "\n".join(map(safe, text.split("\n")))
