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


def _widths(rows: Cells) -> list[int]:
    return [max(columns(cell) for cell in column) for column in zip(*rows, strict=True)]
