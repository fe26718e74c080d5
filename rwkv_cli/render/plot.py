"""A picture of how long a token takes at each position, as PNG or SVG; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from statistics import median

from rwkv_cli.errors import NotFoundError

FORMATS = ("png", "svg")
_COLOURS = ("#0f766e", "#b45309", "#4338ca", "#be123c", "#4d7c0f", "#7e22ce")
_GROUPS = 4  # medians that the line runs through at each depth


@dataclass(frozen=True, slots=True)
class Line:
    """What one engine took at the positions that were measured.

    Attributes:
        label: What it is.
        parts: For each depth: positions, and seconds a token there.
    """

    label: str
    parts: Sequence[tuple[Sequence[int], Sequence[float]]]


def check_plotting() -> None:
    """Fail before minutes are spent, where no picture can be drawn.

    Raises:
        NotFoundError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise NotFoundError(
            "--plot needs matplotlib, which is not installed", hint="pip install 'rwkv-cli[plot]'"
        )


def plot(lines: Sequence[Line], title: str, form: str) -> bytes:
    """Draw time a token against position, on a scale from zero.

    Args:
        lines: What to draw.
        title: Stands above it.
        form: One of `FORMATS`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    top = 0.0
    for place, line in enumerate(lines):
        colour = _COLOURS[place % len(_COLOURS)]
        axes.plot(*_points(line), ".", color=colour, markersize=2, alpha=0.25, rasterized=True)
        xs, ys = _medians(line)
        axes.plot(xs, ys, "-", color=colour, linewidth=1.8, label=_plain(line.label))
        top = max(top, *ys)
    axes.set_ylim(0, 1.3 * top)
    axes.set_xlim(left=0)
    axes.set_xlabel("position (tokens read before)")
    axes.set_ylabel("milliseconds a token")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(_plain(title), fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    target = BytesIO()
    figure.savefig(target, format=form)
    return target.getvalue()


def _points(line: Line) -> tuple[list[int], list[float]]:
    xs = [x for positions, _ in line.parts for x in positions]
    return xs, [1000 * y for _, seconds in line.parts for y in seconds]


def _medians(line: Line) -> tuple[list[float], list[float]]:
    """Give a line through the middle of the points, depth after depth."""
    xs: list[float] = []
    ys: list[float] = []
    for positions, seconds in line.parts:
        pairs = sorted(zip(positions, seconds, strict=True))
        size = max(1, len(pairs) // _GROUPS)
        for start in range(0, len(pairs), size):
            group = pairs[start : start + size]
            xs.append(median(x for x, _ in group))
            ys.append(1000 * median(y for _, y in group))
    return xs, ys


def _plain(text: str) -> str:
    """Keep matplotlib from reading a formula into a name."""
    return text.replace("$", r"\$")
