"""Markdown on a terminal, as it comes: what is shown is never drawn again.

The beginning of a line is held until it tells what the line is, a table until it is whole;
everything else appears word by word. What looks like Markdown and is none stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rwkv_cli.render.inline import BOLD, FAINT, UNDERLINED, Inline
from rwkv_cli.render.wrap import WordWrap, columns

_MOST = 20_000  # characters of a table that are held

# What the beginning of a line may yet become, when it is no more than this.
_UNDECIDED = re.compile(
    r"#{1,6}|>|[-+*]|-{2,}[ ]*|\*{2,}[ ]*|_+[ ]*|`{1,2}|`{3,}[^`]*|~{1,2}|~{3,}.*|\d{1,9}[.)]?|"
)
_FENCE = re.compile(r"(`{3,}|~{3,})[^`]*")
_RULE = re.compile(r"(?:-{3,}|\*{3,}|_{3,})[ ]*")
_HEADING = re.compile(r"(#{1,6})[ \t]+")
_ITEM = re.compile(r"([-+*]|\d{1,9}[.)])[ \t]+")
_QUOTE = re.compile(r">[ ]?")
_DIVIDER = re.compile(r"[ |:-]*-[ |:-]*")
_CELL = re.compile(r"(?<!\\)\|")
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Markdown:
    """Lays Markdown out for a terminal.

    Args:
        width: Gives the columns of the terminal now; it may change at any time.
        coloured: Whether colours may be used.
    """

    def __init__(self, width: Callable[[], int], *, coloured: bool) -> None:
        self._width, self._coloured = width, coloured
        self._wrap = WordWrap(width)
        self._inline = Inline(coloured=coloured)
        self._styles: tuple[str, ...] = ()  # of the line
        self._start: str | None = ""  # the beginning of a line; None behind it
        self._fence = ""  # what the block of code began with
        self._rows: list[str] = []  # of a table

    def feed(self, text: str) -> str:
        """Give what can be shown with these characters."""
        return "".join(self._take(char) for char in text)

    def flush(self) -> str:
        """Give what is held, and end the line."""
        return (self._take("\n") if self._start != "" else "") + self._table()

    def _take(self, char: str) -> str:
        if self._start is None:
            return self._end_line() if char == "\n" else self._inside(char)
        if char == "\n":
            return self._whole_line(self._start)
        self._start += char
        return self._beginning(self._start)

    # Behind the beginning of a line

    def _inside(self, text: str) -> str:
        return text if self._fence else self._wrap.feed(self._inline.feed(text))

    def _end_line(self) -> str:
        self._start = ""
        if self._fence:
            return "\n"
        shown = self._wrap.feed(self._inline.end() + ("\x1b[0m" if self._styles else "") + "\n")
        self._set_line((), "", 0)
        return shown

    def _set_line(self, styles: tuple[str, ...], hang: str, width: int) -> None:
        self._styles = styles
        self._inline = Inline(coloured=self._coloured, outer=styles)
        self._wrap.hang, self._wrap.hang_columns = hang, width

    # At the beginning of a line

    def _beginning(self, line: str) -> str:
        """Show the beginning of a line, once it tells what the line is."""
        body = line.lstrip(" ")
        if self._fence:
            if _closes(body, self._fence):
                return ""
            self._start = None
            return line
        if body.startswith("|") and len(line) + sum(map(len, self._rows)) < _MOST:
            return ""
        if _UNDECIDED.fullmatch(body):
            return ""
        return self._table() + self._begin(line)

    def _whole_line(self, line: str) -> str:
        """Show a line that ended before it told what it is, or because it had to."""
        body = line.lstrip(" ")
        self._start = ""
        if self._fence:
            closing = len(body.rstrip()) >= len(self._fence) and _closes(body, self._fence)
            self._fence = "" if closing else self._fence
            return f"{self._faint(line) if closing else line}\n"
        if body.startswith("|"):
            self._rows.append(line)
            return ""
        before = self._table()
        if match := _FENCE.fullmatch(body):
            self._fence = match[1]
            return f"{before}{self._faint(line)}\n"
        if _RULE.fullmatch(body):
            return f"{before}{self._faint('─' * min(40, self._width() - 1))}\n"
        return before + self._begin(line) + self._end_line()

    def _begin(self, line: str) -> str:
        """Begin a line whose kind is known, and show what there is of it."""
        self._start = None
        body = line.lstrip(" ")
        indent = line[: len(line) - len(body)]
        if match := _HEADING.match(body):
            styles = (BOLD, UNDERLINED) if len(match[1]) == 1 else (BOLD,)
            self._set_line(styles, "", 0)
            opening = f"\x1b[{';'.join(styles)}m"
        elif match := _ITEM.match(body):
            bullet = match[1] if match[1][0].isdecimal() else "•"
            opening = f"{indent}{bullet} "
            self._set_line((), " " * columns(opening), columns(opening))
        elif match := _QUOTE.match(body):
            bar = self._faint("│ ")
            opening = indent + bar
            self._set_line((), indent + bar, len(indent) + 2)
        else:
            self._set_line((), indent, len(indent))
            opening = indent
        rest = body[match.end() :] if match else body
        return self._wrap.feed(opening) + self._inside(rest)

    @staticmethod
    def _faint(text: str) -> str:
        return f"\x1b[{FAINT}m{text}\x1b[0m" if text else ""

    # Tables

    def _table(self) -> str:
        """Show the table that is held; as it was written, where it is none or does not fit."""
        lines, self._rows = self._rows, []
        if not lines:
            return ""
        grid = [_cells(line) for line in lines]
        regular = len(grid) > 1 and len({len(row) for row in grid}) == 1
        if not (regular and _DIVIDER.fullmatch(lines[1].strip())):
            return self._as_written(lines)
        head, *body = [[self._in_styles(cell) for cell in row] for row in (grid[0], *grid[2:])]
        widths = [max(map(_visible, column)) for column in zip(head, *body, strict=True)]
        if sum(widths) + 3 * (len(widths) - 1) > self._width():
            return self._as_written(lines)
        ends = [cell.endswith(":") and not cell.startswith(":") for cell in grid[1]]
        head = [self._inline.styled(cell, (BOLD,)) for cell in head]
        rule = self._faint("─┼─".join("─" * width for width in widths))
        rows = [_set(row, widths, ends, self._faint("│")) for row in (head, *body)]
        return "\n".join([rows[0], rule, *rows[1:]]) + "\n"

    def _as_written(self, lines: Sequence[str]) -> str:
        return "".join(self._begin(line) + self._end_line() for line in lines)

    def _in_styles(self, cell: str) -> str:
        inline = Inline(coloured=self._coloured)
        return inline.feed(cell) + inline.end()


def _closes(body: str, fence: str) -> bool:
    """Tell whether the beginning of a line may yet end a block of code."""
    ticks = body.rstrip(" ")
    return ticks == fence[0] * len(ticks) and (len(ticks) >= len(fence) or ticks == body)


def _cells(line: str) -> list[str]:
    """Cut a row of a table into its cells."""
    parts = _CELL.split(line.strip().removeprefix("|").removesuffix("|"))
    return [part.strip().replace("\\|", "|") for part in parts]


def _visible(cell: str) -> int:
    return columns(_STYLE.sub("", cell))


def _set(row: Sequence[str], widths: Sequence[int], ends: Sequence[bool], bar: str) -> str:
    """Set a row in its columns."""
    cells = []
    for cell, width, at_end in zip(row, widths, ends, strict=True):
        gap = " " * (width - _visible(cell))
        cells.append(gap + cell if at_end else cell + gap)
    return f" {bar} ".join(cells).rstrip(" ")
