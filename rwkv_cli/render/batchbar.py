"""How far a batch is, on stderr: a line that is redrawn on a terminal, a line each half minute
elsewhere, and one whenever a signal asks for it.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterator

from rwkv_cli.render.progress import bar, clock, counted
from rwkv_cli.render.streams import STDERR, is_terminal, note, put, stderr_width
from rwkv_cli.render.style import shows_styles
from rwkv_cli.render.wrap import columns, cut

_PAUSE = 0.1  # seconds between two drawings
_LINE = 30.0  # seconds between two lines that stay
_SAMPLE = 0.5  # seconds between two looks at the speed
_WINDOW = 20.0  # seconds over which the speed is measured, or longer, until there are …
_ROWS = 10  # … so many rows
_SAMPLES = 1200  # most looks that are kept: ten minutes
_SPARE = 3  # columns that stay free: ^C must not begin a line
_BAR = 24  # cells of the widest bar
_LEAST_BAR = 6
_ENDLESS = 1 << 10  # columns

_SIGNALS = ("SIGUSR1", "SIGINFO")  # Windows has neither, Linux no SIGINFO


class BatchBar:
    """Shows rows, errors, speed and time left.

    Args:
        total: How many rows there are; None when nobody knows.
        done: Rows that an earlier run did, those that failed among them; they are no speed.
        errors: Rows of these that failed.
        quiet: Show nothing but what a signal asks for.
    """

    def __init__(
        self, total: int | None, *, done: int = 0, errors: int = 0, quiet: bool = False
    ) -> None:
        self._total, self._done, self._errors, self._tokens = total, done, errors, 0
        self._live = not quiet and is_terminal(STDERR)
        self._lines = not quiet and not self._live
        now = time.monotonic()
        self._drawn = now - _PAUSE if self._live else now
        self._seen = deque([(now, done, 0)], maxlen=_SAMPLES)
        self._width = 0  # columns of the line on the screen
        self._asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, a signal asks for a line, and does not end the process as it would."""
        before = {}
        for name in _SIGNALS:
            if hasattr(signal, name):
                number = getattr(signal, name)
                before[number] = signal.signal(number, self._ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def expect(self, total: int) -> None:
        """Say how many rows there are."""
        self._total = total

    def update(self, done: int, errors: int, tokens: int) -> None:
        """Report how far it is; to be called often, also when nothing has changed.

        Args:
            done: Rows that are done, those of earlier runs and those that failed among them.
            errors: Rows of these that failed.
            tokens: Tokens that this run has generated.
        """
        self._done, self._errors, self._tokens = done, errors, tokens
        now = time.monotonic()
        self._sample(now)
        if self._asked:
            self._asked = False
            self.say(self._line(now))
        elif self._live and now - self._drawn >= _PAUSE:
            self._drawn = now
            self._draw(self._line(now, stderr_width() - _SPARE))
        elif self._lines and now - self._drawn >= _LINE:
            self._drawn = now
            note(self._line(now))

    def say(self, text: str) -> None:
        """Print a sentence that stays, above the line."""
        self.finish()
        note(text)

    def finish(self) -> None:
        """Take the line away; the next report draws it anew."""
        if self._width:
            self._draw("")
            self._width = 0

    def _sample(self, now: float) -> None:
        seen = self._seen
        if len(seen) < 2 or now - seen[-2][0] >= _SAMPLE:
            seen.append((now, self._done, self._tokens))
        else:
            seen[-1] = (now, self._done, self._tokens)
        while len(seen) > 2 and now - seen[1][0] >= _WINDOW and self._done - seen[1][1] >= _ROWS:
            seen.popleft()

    def _rates(self, now: float) -> tuple[float, float]:
        """Give rows and tokens a second, of late."""
        then, rows, tokens = self._seen[0]
        seconds = now - then
        if seconds < _SAMPLE:
            return 0.0, 0.0
        return (self._done - rows) / seconds, (self._tokens - tokens) / seconds

    def _line(self, now: float, room: int | None = None) -> str:
        """Say it in so many columns: what matters less goes first. Without a limit there is no bar:
        the line stays.
        """
        rows, tokens = self._rates(now)
        total = self._total
        count = f"{self._done:,}/{total:,}" if total is not None else counted(self._done, "row")
        left = (total - self._done) / rows if total is not None and rows else None
        parts = {
            "bar": "▕" if total and room is not None else "",
            "count": count,
            "errors": counted(self._errors, "error") if self._errors else "",
            "tokens": f"{tokens:,.0f} tok/s" if tokens else "",
            "rows": _pace(rows) if rows else "",
            "left": f"{clock(left)} left" if left else "",
        }
        parts = {name: text for name, text in parts.items() if text}
        width = _ENDLESS if room is None else room
        for name in ("rows", "tokens", "bar", "left", "errors"):
            if _needed(parts) <= width:
                break
            parts.pop(name, None)
        if "bar" in parts and total:
            cells = width - _needed(parts) + _LEAST_BAR
            parts["bar"] = bar(min(self._done, total), total, min(cells, _BAR))
        head = [parts.pop("bar")] if "bar" in parts else []
        return cut(" ".join([*head, " · ".join(parts.values())]), max(1, width))

    def _draw(self, line: str) -> None:
        """Put a line in place of the one that is there, which a narrower terminal has wrapped; that
        it is narrower is told late, so a line must not wrap while it is drawn.
        """
        width = stderr_width()
        above = max(0, self._width - 1) // width
        self._width = columns(line)
        if shows_styles(STDERR):
            up = f"\x1b[{above}A" if above else ""
            put(f"\x1b[?7l\r{up}{line}\x1b[J\x1b[?7h")
        else:
            put("\r" + line.ljust(width - 1) + ("" if line else "\r"))


def _needed(parts: dict[str, str]) -> int:
    """Count the columns that the parts take, with the smallest bar."""
    texts = [columns(text) + 3 for name, text in parts.items() if name != "bar"]
    return sum(texts) - 3 + (_LEAST_BAR + 3 if "bar" in parts else 0)


def _pace(rows: float) -> str:
    """Say how fast rows are done, in the unit that reads best."""
    if rows >= 100:
        return f"{rows:,.0f} rows/s"
    if rows >= 0.95:
        return f"{rows:.1f} rows/s"
    return f"{60 * rows:.1f} rows/min"
