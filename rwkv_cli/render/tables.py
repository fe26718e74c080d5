"""Tables for people: aligned columns, or Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.wrap import columns

Cells = Sequence[Sequence[str]]


def aligned(rows: Cells) -> str:
    """Set rows in columns, the first one to the left and all others to the right; the first row
    is the head.
    """
    rows = [[safe(cell) for cell in row] for row in rows]
    widths = _widths(rows)
    lines = []
    for row in rows:
        first, *others = (
            " " * (width - columns(cell)) + cell if place else cell + " " * (width - columns(cell))
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
    """Set rows of different lengths in columns to the left, so that each is one line.

    Args:
        rows: The cells; the last of a row may be longer than its column.
        width: Columns of the terminal, where the last columns give way until a line fits and what
            is left of it is cut; None where lines may be of any length.
    """
    rows = [[safe(cell) for cell in row] for row in rows]
    count = max(map(len, rows), default=0)
    while True:
        lines = _ragged([row[:count] for row in rows], count)
        if width is None or count < 3 or all(columns(line) < width for line in lines):
            break
        count -= 1
    return "".join(_cut(line, width) + "\n" for line in lines)


def _ragged(rows: Cells, count: int) -> list[str]:
    """Pad all cells but the last of each row to the width of their columns."""
    inner = [[row[n] for row in rows if n + 1 < len(row)] for n in range(count)]
    widths = [max(map(columns, column), default=0) for column in inner]
    lines = []
    for row in rows:
        *cells, last = row
        padded = [c + " " * (wide - columns(c)) for c, wide in zip(cells, widths, strict=False)]
        lines.append("  ".join([*padded, last]).rstrip())
    return lines


def _cut(line: str, width: int | None) -> str:
    """Shorten a line that does not fit."""
    if width is None or columns(line) < width:
        return line
    while line and columns(line) >= width - 1:
        line = line[:-1]
    return f"{line}…"


def _widths(rows: Cells) -> list[int]:
    return [max(columns(cell) for cell in column) for column in zip(*rows, strict=True)]
