"""What a long run does now, on stderr: a line redrawn on a terminal, a line a step elsewhere."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress

from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDERR, is_terminal, note
from rwkv_cli.render.style import dim

_PAUSE = 0.1  # seconds between two drawings


class Steps:
    """Tells which step a run is at; the call is the step and how much of it is done, 0 to 1.

    Args:
        enabled: Whether to show anything.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._live = enabled and is_terminal(STDERR)
        self._lines = enabled and not self._live
        self._step, self._drawn = "", 0.0

    def __call__(self, step: str, done: float) -> None:
        """Show a step, and how far it is."""
        now = time.monotonic()
        new, self._step = step != self._step, step
        if self._live and (new or now - self._drawn > _PAUSE):
            self._drawn = now
            line = f"{safe(step)}  {done:.0%}"[: shutil.get_terminal_size().columns - 1]
            self._write(f"\r{dim(line)}\x1b[K")
        elif self._lines and new:
            note(safe(step))

    def finish(self) -> None:
        """Remove the line."""
        if self._live and self._step:
            self._write("\r\x1b[K")

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError):
            os.write(STDERR, text.encode("utf-8", "replace"))
