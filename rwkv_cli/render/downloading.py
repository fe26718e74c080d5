"""How far a download is: a line that is redrawn on a terminal, a line every tenth elsewhere, or
JSON events.
"""

from __future__ import annotations

import json
import time
from collections import deque

from rwkv_cli.render.progress import bar, clock
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDERR, Sink, is_terminal, note, put, stderr_width
from rwkv_cli.render.style import dim, shows_styles
from rwkv_cli.render.wrap import columns, cut
from rwkv_cli.sizes import amount

_PAUSE = 0.1  # seconds between two drawings
_WINDOW = 10.0  # seconds over which the speed is measured
_EVENT = 0.5  # seconds between two events
_ROOM_FOR_KEYS = 2  # columns that ^C takes, which must not begin a line
_NARROW, _WIDE = 60, 76  # columns


class DownloadView:
    """Shows a download on stderr; satisfies `hub.watching.Watch`.

    Args:
        quiet: Show nothing.
        events: Where JSON events go, one a line; None for people.
    """

    def __init__(self, *, quiet: bool, events: Sink | None = None) -> None:
        self._quiet, self._events = quiet, events
        self._live = not quiet and events is None and is_terminal(STDERR)
        self._lines = not quiet and events is None and not self._live
        self._name, self._shown = "", 0
        self._total: int | None = None
        self._drawn, self._tenth, self._on_screen, self._open = 0.0, 0, False, False
        self._seen: deque[tuple[float, int]] = deque()

    def begin(self, name: str, total: int | None, have: int) -> None:
        """A file is about to come; told again, it is the same one."""
        if self._open and (name, total) == (self._name, self._total):
            return
        self.end()
        self._name, self._total, self._shown, self._open = name, total, have, True
        self._seen = deque([(time.monotonic(), have)])
        self._drawn, self._tenth = 0.0, self._tenth_of(have)
        self._event("begin", name=name, total=total, done=have)
        if have and total and have < total:
            self.say(f"going on with {name}: {amount(have)} of {amount(total)} are here")

    def at(self, done: int, state: str = "") -> None:
        """So many bytes are there; what is shown never goes back."""
        now = time.monotonic()
        self._shown = max(self._shown, done)
        self._seen.append((now, self._shown))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        if self._live and now - self._drawn > _PAUSE:
            self._drawn = now
            self._draw(self._line(state))
        elif self._lines and (tenth := self._tenth_of(self._shown)) > self._tenth:
            self._tenth = tenth
            note(self._line(state))
        elif self._events is not None and now - self._drawn > _EVENT:
            self._drawn = now
            rate, left = self._speed()
            self._event(
                "progress", name=self._name, done=self._shown, total=self._total,
                bytes_per_second=round(rate), seconds_left=left and round(left), state=state,
            )  # fmt: skip

    def checking(self, done: int, total: int | None) -> None:
        """So many bytes were compared with what was promised."""
        now = time.monotonic()
        if self._live and now - self._drawn > _PAUSE:
            self._drawn = now
            share = f" {100 * done // total} %" if total else ""
            self._draw(f"{safe(self._name)}  checking{share}")

    def say(self, text: str) -> None:
        """A sentence that stays, above the line."""
        self._event("note", text=text)
        if not self._quiet and self._events is None:
            self._clear()
            note(dim(safe(text)))

    def end(self) -> None:
        """Take the line away; where lines stay, say what was reached."""
        whole = self._total is not None and self._shown >= self._total
        if self._open and self._lines and whole and self._tenth < 10:
            note(self._line(""))
        self._clear()
        self._open = False

    def done(self, path: str) -> None:
        """Tell where the model is."""
        self._event("done", path=path)

    def _tenth_of(self, done: int) -> int:
        return 10 * done // self._total if self._total else done // (100 << 20)

    def _speed(self) -> tuple[float, float | None]:
        """Give bytes a second, and the seconds that are left."""
        (then, before), (now, done) = self._seen[0], self._seen[-1]
        rate = (done - before) / (now - then) if now > then else 0.0
        left = (self._total - done) / rate if self._total and rate else None
        return rate, left

    def _line(self, state: str) -> str:
        width = stderr_width() - _ROOM_FOR_KEYS if self._live else 1 << 10
        rate, left = self._speed()
        name = safe(self._name)
        if self._total is None:
            parts = [name, amount(self._shown, fine=True), f"{amount(rate, fine=True)}/s"]
        else:
            share = f"{100 * self._shown // self._total if self._total else 100:3d} %"
            wide = self._live and width > _WIDE and not state
            drawn = bar(self._shown, self._total, 16) if wide else ""
            of = f"{amount(self._shown, fine=True)}/{amount(self._total, fine=True)}"
            speed = "" if state else f"{amount(rate, fine=True)}/s"
            parts = [share, drawn, of, speed, clock(left) + " left" if left and not state else ""]
            if width < _NARROW or (state and self._live):
                parts = [share, of if width > 45 else "", speed]
            parts.insert(0, name)
        parts = [part for part in (*parts, safe(state)) if part]
        room = width - 1 - columns("  ".join(parts[1:])) - 2
        parts[0] = cut(name, max(8, room))
        return cut("  ".join(parts), width - 1)

    def _draw(self, line: str) -> None:
        if shows_styles(STDERR):
            put(f"\r{line}\x1b[K")
        else:
            put("\r" + line.ljust(stderr_width() - 1))
        self._on_screen = True

    def _clear(self) -> None:
        if self._on_screen:
            put("\r\x1b[K" if shows_styles(STDERR) else "\r" + " " * (stderr_width() - 1) + "\r")
            self._on_screen = False

    def _event(self, kind: str, **facts: object) -> None:
        if self._events is not None:
            text = json.dumps({"event": kind, **{k: v for k, v in facts.items() if v != ""}})
            self._events.write(text.encode() + b"\n")
