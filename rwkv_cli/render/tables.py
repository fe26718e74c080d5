"""Tables for people: aligned columns, or Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.wrap import columns, cut, padded

Cells = Sequence[Sequence[str]]

_SHORTEST = 12  # columns that a name takes at least


def aligned(rows: Cells) -> str:
    """Set rows in columns, the first one to the left and all others to the right; the first row
    is the head.
    """
    rows = [[safe(cell) for cell in row] for row in rows]
    widths = _widths(rows)
    lines = []
    for row in rows:
        first, *others = (
            " " * (width - columns(cell)) + cell if place else padded(cell, width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines) + "\n"


def markdown(rows: Cells) -> str:
    """Write the same as a table of Markdown."""
    head, *body = ([safe(cell).replace("|", "\\|") for cell in row] for row in rows)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))


def fitted(rows: Cells, width: int | None) -> str:
    """Set rows of different lengths in columns to the left, each on one line.

    Args:
        rows: The cells. The last of a row that is shorter than others may be of any length.
        width: Columns of the terminal, where the last columns give way until the others fit, names
            in the first are shortened in their middle, and long last cells are cut; None where
            lines may be of any length.
    """
    rows = [[safe(cell) for cell in row] for row in rows]
    count = most = max(map(len, rows), default=0)
    lines = _ragged(rows)
    if width is None:
        return "".join(f"{line}\n" for line in lines)
    while count > 2 and any(
        columns(line) >= width for row, line in zip(rows, lines, strict=True) if len(row) == most
    ):
        count -= 1
        lines = _ragged([row[:count] for row in rows])
    rest = max((columns(row[1]) + 2 for row in rows if len(row) == most), default=0)
    room = max(_SHORTEST, width - 1 - rest)
    if count == 2:
        lines = _ragged([[_shortened(row[0], room), *row[1:count]] for row in rows])
    return "".join(f"{cut(line, width - 1)}\n" for line in lines)


def hanging(rows: Sequence[tuple[str, str]], indent: int, width: int | None) -> str:
    """Set texts beside their labels; what does not fit goes on below itself.

    Args:
        rows: Label and text; a label longer than the indent shifts its own line.
        indent: Columns before the texts.
        width: Columns of the terminal; None where lines may be of any length.
    """
    lines = []
    room = None if width is None or width < 2 * indent else width - 1 - indent
    for label, text in rows:
        parts = [safe(text)] if room is None else _wrapped(safe(text), room)
        lines.append(f"{safe(label):<{indent - 1}} {parts[0]}\n")
        lines += [f"{' ' * indent}{part}\n" for part in parts[1:]]
    return "".join(lines)


def _wrapped(text: str, room: int) -> list[str]:
    """Break a text between words; a long one stays whole, so that a path can be copied."""
    parts = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return parts or [""]


def _ragged(rows: Cells) -> list[str]:
    """Pad all cells but the last of each row to the width of their columns."""
    count = max(map(len, rows), default=0)
    inner = [[row[n] for row in rows if n + 1 < len(row)] for n in range(count)]
    widths = [max(map(columns, column), default=0) for column in inner]
    lines = []
    for row in rows:
        *cells, last = row
        filled = [padded(c, wide) for c, wide in zip(cells, widths, strict=False)]
        lines.append("  ".join([*filled, last]).rstrip())
    return lines


def _shortened(text: str, width: int) -> str:
    """Leave out the middle of a name that does not fit."""
    if columns(text) <= width:
        return text
    tail = width // 3
    return cut(text, width - tail) + text[-tail:]


def _widths(rows: Cells) -> list[int]:
    return [max(columns(cell) for cell in column) for column in zip(*rows, strict=True)]
