"""Emphasis inside a line of Markdown, as it comes: a span is held until its end is there, and is
shown as it was typed when none comes. So nothing is lost, and nothing is drawn twice.
"""

from __future__ import annotations

import re

LIMIT = 160  # characters that are held for the end of a span

BOLD, FAINT, ITALIC, UNDERLINED, STRUCK, CODE = "1", "2", "3", "4", "9", "36"
_RESET = "\x1b[0m"

_MARKS = "*`~\\"
_ESCAPED = "*`~_#"  # what a backslash before it means to be taken as it is

# Each asks for one character behind the span: "**a*" may yet become "**a**b".
_SPANS = (
    (re.compile(r"(`+)(?!`)(?P<text>[^\n]+?)(?<!`)\1(?=[^`])"), (CODE,)),
    (re.compile(r"\*\*\*(?![\s*])(?P<text>[^\n]+?)(?<![\s*])\*\*\*(?=[^*])"), (BOLD, ITALIC)),
    (re.compile(r"\*\*(?![\s*])(?P<text>[^\n]+?)(?<!\s)\*\*(?=[^*])"), (BOLD,)),
    (
        re.compile(r"\*(?![\s*])(?P<text>(?:[^\n*]|\*\*[^\n*]+\*\*)+)(?<!\s)\*(?=[^*])"),
        (ITALIC,),
    ),
    (re.compile(r"~~(?![\s~])(?P<text>[^\n]+?)(?<!\s)~~(?=[^~])"), (STRUCK,)),
)
_MAY_BECOME_ONE = re.compile(r"\*{1,3}(?![\s*])|~\Z|~~(?![\s~])|`+")


class Inline:
    """Turns emphasis into styles, character by character.

    Args:
        coloured: Whether colours may be used; bold and italic are none.
        outer: Styles of the line it stands in.
    """

    def __init__(self, *, coloured: bool, outer: tuple[str, ...] = ()) -> None:
        self._coloured, self._outer = coloured, outer
        self._held = ""  # from a mark on
        self._before = " "  # the character before it
        self._run = ""  # a mark that was shown as it is; more of it are too

    def feed(self, text: str) -> str:
        """Give what can be shown with these characters."""
        shown = ""
        for char in text:
            self._held += char
            shown += self._drain(last=False)
        return shown

    def end(self) -> str:
        """Give what is held: the line has ended."""
        shown = self._drain(last=True)
        self._before, self._run = " ", ""
        return shown

    def _drain(self, *, last: bool) -> str:
        shown = ""
        while self._held:
            piece = self._next(last=last)
            if piece is None:
                break
            shown += piece
        return shown

    def _next(self, *, last: bool) -> str | None:
        """Take what can be decided from what is held; None when more has to come first."""
        mark = self._held[0]
        if mark not in _MARKS or mark == self._run:
            return self._literal()
        if mark == "\\":
            return self._escape(last=last)
        if mark != "`" and self._before.isascii() and self._before.isalnum():
            return self._literal()  # 2*3*4, x**2
        text = self._held + "\n" if last else self._held
        for pattern, styles in _SPANS:
            if match := pattern.match(text):
                return self._span(match, styles)
        if last or len(self._held) > LIMIT or not _MAY_BECOME_ONE.match(self._held):
            return self._literal()
        return None

    def _literal(self) -> str:
        char, self._held = self._held[0], self._held[1:]
        self._run = char if char in "*`~" else ""
        self._before = char if not self._run else self._before
        return char

    def _escape(self, *, last: bool) -> str | None:
        if len(self._held) == 1 and not last:
            return None
        if self._held[1:2] and self._held[1] in _ESCAPED:
            char, self._held = self._held[1], self._held[2:]
            self._before, self._run = char, ""
            return char
        return self._literal()

    def _span(self, match: re.Match[str], styles: tuple[str, ...]) -> str:
        whole, text = match[0], match["text"]
        self._held = self._held[len(whole) :]
        self._before, self._run = whole[-1], ""
        if styles == (CODE,):
            return self.styled(text, styles) if self._coloured else whole
        inner = Inline(coloured=self._coloured, outer=(*self._outer, *styles))
        return self.styled(inner.feed(text) + inner.end(), styles)

    def styled(self, text: str, styles: tuple[str, ...]) -> str:
        """Set a text in styles; after it those of the line go on."""
        return _style(styles) + text + _RESET + _style(self._outer)


def _style(styles: tuple[str, ...]) -> str:
    return f"\x1b[{';'.join(styles)}m" if styles else ""
