"""A small chart of numbers in the terminal, each a column that grows from zero."""

from __future__ import annotations

import locale
import sys
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from rwkv_cli.render.wrap import columns as width_of

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = " #"
_SCALE = 10  # columns of the figures at the left
_GAP = "  "

Series = Sequence[tuple[str, Sequence[float]]]


def chart(series: Series, *, width: int, height: int = 5, unicode: bool = True) -> str:
    """Draw series side by side on one scale from zero.

    Args:
        series: Labels and their numbers, at least one of each.
        width: Columns there are.
        height: Lines of the drawing.
        unicode: Whether the terminal shows eighths of a block; else a column has full steps only.
    """
    each = max(8, (width - _SCALE - len(_GAP) * (len(series) - 1) - 1) // len(series))
    parts = [(label, _thinned(numbers, each)) for label, numbers in series]
    top = max(max(numbers) for _, numbers in parts) or 1.0
    blocks = _BLOCKS if unicode else _ASCII
    lines = []
    for line in range(height, 0, -1):
        figure = {height: f"{top:,.3g}", 1: "0"}.get(line, "")
        cells = _GAP.join(_line(numbers, top, line, height, blocks) for _, numbers in parts)
        lines.append(f"{figure:>{_SCALE - 2}}  {cells}".rstrip())
    labels = _GAP.join(_padded(label, len(numbers)) for label, numbers in parts)
    lines.append(" " * _SCALE + labels.rstrip())
    return "\n".join(lines) + "\n"


def _thinned(numbers: Sequence[float], count: int) -> list[float]:
    """Give as many numbers as there are columns, each the median of its neighbours."""
    count = min(count, len(numbers))
    edges = [len(numbers) * i // count for i in range(count + 1)]
    return [median(numbers[a:b]) for a, b in pairwise(edges)]


def _line(numbers: Sequence[float], top: float, line: int, height: int, blocks: str) -> str:
    """Draw one line, counted from the bottom."""
    steps = len(blocks) - 1
    filled = (round(number / top * height * steps) - (line - 1) * steps for number in numbers)
    return "".join(blocks[min(steps, max(0, step))] for step in filled)


def _padded(label: str, size: int) -> str:
    cut = label[:size]
    return cut + " " * (size - width_of(cut))


def shows_unicode() -> bool:
    """Tell whether the terminal is said to show more than ASCII."""
    try:
        name = locale.nl_langinfo(locale.CODESET)
    except AttributeError:  # Windows, where the stream knows
        name = getattr(sys.stdout, "encoding", None) or ""
    return name.lower().replace("-", "") == "utf8"
