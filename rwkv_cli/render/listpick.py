"""A list of lines to choose one from with the arrow keys; drawn on stderr, since stdout may be
piped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Point
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout import HSplit, Layout, ScrollOffsets, Window
from prompt_toolkit.layout.controls import FormattedTextControl
from prompt_toolkit.output import create_output

from rwkv_cli.render.treepick import moving_keys

_MARK, _NO_MARK = "> ", "  "


def pick_line(rows: Callable[[int], Sequence[str]], title: str, legend: str) -> int | None:
    """Let the user choose a line.

    Args:
        rows: Gives the lines for a width in columns; their number never changes.
        title: Stands above.
        legend: Stands below.

    Returns:
        Its place; None when the user left without one.
    """
    output = create_output(stdout=sys.stderr)
    count = len(rows(80))
    at = 0

    def go(steps: int) -> None:
        nonlocal at
        at = min(count - 1, max(0, at + steps))

    def picture() -> StyleAndTextTuples:
        texts = rows(output.get_size().columns - len(_MARK) - 1)
        shown: StyleAndTextTuples = []
        for place, text in enumerate(texts):
            mark, style = (_MARK, "reverse") if place == at else (_NO_MARK, "")
            shown.append((style, mark + text + "\n" * (place < count - 1)))
        return shown

    def height() -> int:
        return min(count, max(1, output.get_size().rows - 4))

    control = FormattedTextControl(
        picture, focusable=True, get_cursor_position=lambda: Point(0, at)
    )
    body = Window(
        control,
        height=height,
        always_hide_cursor=True,
        scroll_offsets=ScrollOffsets(top=1, bottom=1),
    )
    app: Application[str | None] = Application(
        Layout(HSplit([_line(title, "bold"), body, _line(legend, "fg:ansibrightblack")])),
        key_bindings=moving_keys(go, lambda: str(at)),
        erase_when_done=True,
        output=output,
    )
    chosen = app.run()
    return None if chosen is None else int(chosen)


def _line(text: str, style: str) -> Window:
    return Window(FormattedTextControl([(style, text)]), dont_extend_height=True, wrap_lines=True)
