"""Published models as rows of a table, and a list to choose one from on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rwkv_cli.hub.catalogue import Entry
from rwkv_cli.hub.fit import Fit, Room
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDERR, STDIN, is_terminal, note
from rwkv_cli.render.style import shows_styles
from rwkv_cli.render.wrap import columns, padded
from rwkv_cli.sizes import amount

_FITS = {
    "fits": "fits",
    "int8": "as int8",
    "int4": "as int4",
    "memory": "too large",
    "disk": "disk full",
    "unknown": "",
}
_HEAD = ("name", "size", "here", "version", "chat", "date", "format", "licence")


def heading() -> tuple[str, ...]:
    """Give the names of the columns of `cells`."""
    return _HEAD


def cells(entry: Entry, fit: Fit, *, installed: bool) -> tuple[str, ...]:
    """Give the cells of a model."""
    size = amount(entry.bytes) if entry.bytes else "?"
    return (
        ("* " if fit.recommended else "  ") + entry.name,
        size if entry.size else f"~{size}",
        "installed" if installed else _FITS[fit.how],
        f"RWKV-{entry.version}",
        entry.family,
        entry.date or "",
        entry.format,
        entry.licence or "",
    )


def lines(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Set rows in columns, as many of them as fit."""
    rows = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    gap = "  " if sum(widths[:3]) + 4 <= width else " "
    kept = 1
    while kept < len(widths) and sum(widths[: kept + 1]) + kept * len(gap) <= width:
        kept += 1
    return [
        gap.join(
            " " * (wide - columns(cell)) + cell if place == 1 else padded(cell, wide)
            for place, (cell, wide) in enumerate(zip(row[:kept], widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def free(room: Room) -> str:
    """Say what is free."""
    kinds = (("memory", room.memory), ("the card", room.card or None), ("disk", room.disk))
    return "free: " + ", ".join(
        f"{amount(size)} of {kind}" for kind, size in kinds if size is not None
    )


def can_ask() -> bool:
    """Tell whether somebody is there to choose."""
    return is_terminal(STDIN) and is_terminal(STDERR)


def pick(
    rows: Callable[[int], Sequence[str]], labels: Sequence[str], title: str, legend: str
) -> str | None:
    """Let the user choose one of several things.

    Args:
        rows: Gives the texts for a width, one for each label.
        labels: What is chosen from.
        title: Stands above.
        legend: Stands below.

    Returns:
        The label; None when the user left without one.
    """
    if not shows_styles(STDERR):
        return _pick_by_number(rows(79), labels, title)
    return _pick_by_arrows(rows, labels, title, legend)


def _pick_by_number(texts: Sequence[str], labels: Sequence[str], title: str) -> str | None:
    """Ask for a number: for terminals that cannot move their cursor."""
    note(safe(title))
    for number, text in enumerate(texts, 1):
        note(f"{number:3d}  {text}")
    while True:
        note(f"Which one, 1 to {len(labels)}? Enter alone leaves.")
        answer = sys.stdin.readline().strip()
        if not answer:
            return None
        if answer.isdecimal() and 1 <= int(answer[:6]) <= len(labels):
            return labels[int(answer) - 1]


def _pick_by_arrows(
    rows: Callable[[int], Sequence[str]], labels: Sequence[str], title: str, legend: str
) -> str | None:
    from rwkv_cli.render.listpick import pick_line

    chosen = pick_line(rows, title, legend)
    return None if chosen is None else labels[chosen]
