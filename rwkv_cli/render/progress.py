"""Progress and figures on stderr: one line redrawn on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import time

from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDERR, is_terminal, note, put
from rwkv_cli.render.style import dim
from rwkv_cli.sizes import amount

_PAUSE = 0.1  # seconds between two drawings
_QUIET = 0.5  # work shorter than this is not worth a line


class Progress:
    """Tells how far a long piece of work is; says nothing when it is short.

    Args:
        label: What is being done.
        unit: What is counted.
        total: How much there is; None when nobody knows.
        enabled: Whether to show anything.
    """

    def __init__(self, label: str, unit: str, total: int | None, *, enabled: bool) -> None:
        self._label, self._unit, self._total = safe(label), unit, total
        self._live = enabled and is_terminal(STDERR)
        self._lines = enabled and not self._live
        self._began = self._drawn = time.monotonic()
        self._visible = False

    def expect(self, total: int) -> None:
        """Say how much there is."""
        self._total = total

    def update(self, done: int) -> None:
        """Report how much is done."""
        now = time.monotonic()
        if self._live and now - self._began > _QUIET and now - self._drawn > _PAUSE:
            self._drawn, self._visible = now, True
            line = self._line(done, now - self._began)[: shutil.get_terminal_size().columns - 1]
            put("\r" + dim(line) + "\x1b[K")
        elif self._lines and now - self._drawn > 10:
            self._drawn = now
            note(self._line(done, now - self._began))

    def finish(self) -> None:
        """Remove the line."""
        if self._visible:
            put("\r\x1b[K")
            self._visible = False

    def _line(self, done: int, seconds: float) -> str:
        if not done:
            return f"{self._label} …"
        rate = done / seconds if seconds else 0.0
        if self._total:
            share = f"{min(100, 100 * done // self._total):3d} %  "
            left = f", {clock(max(0, self._total - done) / rate)} left" if rate else ""
        else:
            share, left = "", ""
        return f"{self._label}  {share}{self._amount(done)}, {self._amount(rate)}/s{left}"

    def _amount(self, count: float) -> str:
        if self._unit != "bytes":
            return f"{count:,.0f} {self._unit}"
        return amount(count)


def bar(done: int, total: int, width: int) -> str:
    """Draw how much is there, in eighths of a cell."""
    eighths = 8 * width * done // total if total else 8 * width
    full, part = divmod(eighths, 8)
    return ("▕" + "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(width + 1) + "▏"


def clock(seconds: float) -> str:
    """Say a duration: 42 s, 3 m 05 s, 2 h 10 m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def counted(count: int, what: str) -> str:
    """Say how many: 1 token, 2 tokens."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def speed(tokens: int, seconds: float) -> str:
    """Say how fast tokens came, both ways: 31.2 ms/token, 32.1 tokens/s."""
    if not tokens or seconds <= 0:
        return "no tokens"
    return f"{1000 * seconds / tokens:.1f} ms/token, {tokens / seconds:.1f} tokens/s"
