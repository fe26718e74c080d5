"""Breaks lines between words at the edge of a terminal, while the text is still coming."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable


class WordWrap:
    """Gives text out word by word; nothing is ever drawn again.

    A word is held until it is complete, and begins a new line when it does not fit. Scripts without
    spaces break anywhere; a word longer than a line is left to the terminal. Styles (escape
    sequences that end in m, which must be our own) take no room.

    Args:
        width: Gives the columns of the terminal now; it may change at any time.

    Attributes:
        hang: What a line begins with that goes on from the one before; it takes `hang_columns`.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0
        self._gap = ""  # white space before the word
        self._word, self._size = "", 0  # what is held, and the columns it takes
        self._style = ""  # an escape sequence that has begun
        self.hang, self.hang_columns = "", 0

    def after(self, text: str) -> None:
        """Go on behind a text that is on the screen already."""
        self._column = columns(text.rpartition("\n")[2]) % max(1, self._width())

    def feed(self, text: str) -> str:
        """Give what can be shown with these characters."""
        return "".join(self._take(char) for char in text)

    def flush(self) -> str:
        """Give what is held."""
        shown = self._release() + self._gap
        self._column += columns(self._gap)
        self._gap = ""
        return shown

    def _take(self, char: str) -> str:
        if self._style or char == "\x1b":
            return self._take_style(char)
        if char == "\n":
            shown = self.flush() + char
            self._column = 0
            return shown
        if char in " \t":
            shown = self._release()
            self._gap += char
            return shown
        if unicodedata.east_asian_width(char) in "WF":
            shown = self._release() if self._size else ""
            self._hold(char)
            return shown + self._release()
        self._hold(char)
        return self._release() if self._size >= self._width() else ""

    def _take_style(self, char: str) -> str:
        self._style += char
        if char == "m":
            self._word += self._style
            self._style = ""
        return ""

    def _hold(self, char: str) -> None:
        self._word += char
        self._size += columns(char)

    def _release(self) -> str:
        """Give out the word that is held, on this line or the next."""
        if not self._word:
            return ""
        word, gap, size = self._word, self._gap, self._size
        self._word, self._gap, self._size = "", "", 0
        needed = columns(gap) + size
        if size and self._column and gap and self._column + needed > self._width():
            hang, width = self.hang, self.hang_columns
            if 2 * width > self._width():
                hang, width = "", 0
            self._column = width + size
            return "\n" + hang + word
        self._column += needed
        return gap + word


def columns(text: str) -> int:
    """Count the columns a text takes: wide characters two, combining ones none, a tab eight."""
    return sum(_columns(char) for char in text) if not text.isascii() else _ascii_columns(text)


def cut(line: str, room: int) -> str:
    """Give as much of a line as fits into some columns, with a mark where it was longer."""
    used = fitting = 0
    for count, char in enumerate(line, 1):
        used += columns(char)
        if used > room:
            return line[:fitting] + "\u2026"
        if used < room:
            fitting = count
    return line


def padded(text: str, width: int) -> str:
    """Fill a text up to some columns."""
    return text + " " * (width - columns(text))


def _ascii_columns(text: str) -> int:
    return len(text) + 7 * text.count("\t")


def _columns(char: str) -> int:
    if char == "\t":
        return 8
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
