"""Whether a terminal shows styles, and the one style of everything that is not the answer."""

from __future__ import annotations

import contextlib
import os

from rwkv_cli.render.sanitize import safe_lines
from rwkv_cli.render.streams import STDERR, is_terminal


def shows_styles(descriptor: int) -> bool:
    """Tell whether bold and faint text may be written to a stream."""
    return is_terminal(descriptor) and os.environ.get("TERM") != "dumb"


def shows_colours(descriptor: int) -> bool:
    """Tell whether colours may be, too: not when NO_COLOR is set."""
    return shows_styles(descriptor) and not os.environ.get("NO_COLOR")


def dim(text: str) -> str:
    """Make a note on stderr recede, where that is possible and wanted."""
    return f"\x1b[2m{text}\x1b[0m" if shows_colours(STDERR) else text


def hint(text: str) -> None:
    """Show a text on stderr, dim and without a line end, where stdout is about to go on from it."""
    if is_terminal(STDERR):
        with contextlib.suppress(OSError):
            os.write(STDERR, dim(safe_lines(text)).encode("utf-8", "replace"))
