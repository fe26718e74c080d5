"""A conversation's tree to go about in with the arrow keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Point
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import HSplit, Layout, ScrollOffsets, Window
from prompt_toolkit.layout.controls import FormattedTextControl
from prompt_toolkit.output import Output

from rwkv_cli.render.treeview import TreeLine

_PAGE = 10  # turns


def pick_turn(
    lines: Sequence[TreeLine], here: str, legend: str, output: Output | None
) -> str | None:
    """Let the user choose a turn.

    Args:
        lines: The picture of the tree.
        here: The turn that is chosen at first.
        legend: Stands below the picture.
        output: The terminal; None is stdout.

    Returns:
        The turn; None when the user left without one.
    """
    turns = list(dict.fromkeys(line.turn for line in lines))
    at = turns.index(here) if here in turns else len(turns) - 1

    def go(steps: int) -> None:
        nonlocal at
        at = min(len(turns) - 1, max(0, at + steps))

    def picture() -> StyleAndTextTuples:
        return [
            (
                "reverse" if line.turn == turns[at] else "",
                line.text + "\n" * (line is not lines[-1]),
            )
            for line in lines
        ]

    def cursor() -> Point:
        return Point(0, next(row for row, line in enumerate(lines) if line.turn == turns[at]))

    def rows() -> int:
        return min(len(lines), max(1, app.output.get_size().rows - 2))

    tree = FormattedTextControl(picture, focusable=True, get_cursor_position=cursor)
    below = FormattedTextControl([("fg:ansibrightblack", legend)])
    app: Application[str | None] = Application(
        Layout(HSplit([_window(tree, rows), Window(below, height=1)])),
        key_bindings=moving_keys(go, lambda: turns[at]),
        erase_when_done=True,
        output=output,
    )
    return app.run()


def _window(tree: FormattedTextControl, rows: Callable[[], int]) -> Window:
    near = ScrollOffsets(top=1, bottom=1)  # a turn takes two lines
    return Window(tree, height=rows, always_hide_cursor=True, scroll_offsets=near)


def _step(go: Callable[[int], None], steps: int) -> Callable[[KeyPressEvent], None]:
    return lambda event: go(steps)  # noqa: ARG005


def moving_keys(go: Callable[[int], None], chosen: Callable[[], str]) -> KeyBindings:
    """Say what the keys do: arrows as everywhere, j, k, g and G as in a pager."""
    keys = KeyBindings()
    far = 1 << 30
    for names, steps in (
        (("up", "k", "c-p"), -1),
        (("down", "j", "c-n"), 1),
        (("pageup",), -_PAGE),
        (("pagedown",), _PAGE),
        (("home", "g"), -far),
        (("end", "G"), far),
    ):
        for name in names:
            keys.add(name)(_step(go, steps))

    @keys.add("enter")
    def take(event: KeyPressEvent) -> None:
        event.app.exit(result=chosen())

    @keys.add("q")
    @keys.add("escape", eager=True)
    @keys.add("c-c")
    @keys.add("c-d")
    def leave(event: KeyPressEvent) -> None:
        event.app.exit(result=None)

    return keys
