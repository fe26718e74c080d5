"""The line that tells how far a batch is: true, and as wide as the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rwkv_cli.render.batchbar import BatchBar
from rwkv_cli.render.wrap import columns

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setenv("TERM", "xterm")
    return clock


class Screen:
    """The other side of a terminal, which takes all that is written."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._listen()

    def _listen(self) -> None:
        self._text = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._text.endswith(b"\0"):
            self._text += os.read(self._master, 10_000)

    def resize(self, width: int) -> None:
        size = struct.pack("HHHH", 24, width, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def new(self) -> str:
        """What was written since the last look."""
        os.write(2, b"\0")
        self._reader.join(10)
        assert not self._reader.is_alive()
        text = self._text[:-1].decode()
        self._listen()
        return text

    def end(self) -> None:
        os.write(2, b"\0")
        self._reader.join(10)


@contextmanager
def terminal(width: int) -> Iterator[Screen]:
    master, slave = pty.openpty()
    keep = os.dup(2)
    os.dup2(slave, 2)
    screen = Screen(master)
    try:
        screen.resize(width)
        yield screen
    finally:
        screen.end()
        os.dup2(keep, 2)
        for descriptor in (keep, slave, master):
            os.close(descriptor)


def _run(bar: BatchBar, clock: Clock, *, seconds: int, done: int, errors: int = 3) -> None:
    """Work at 11.6 rows and 812 tokens a second, to so many rows at last."""
    for left in range(seconds * 5, -1, -1):
        clock.now += 0.2
        bar.update(done - int(11.6 * left / 5), errors, 812 * (seconds * 5 - left) // 5)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[?0-9]*[A-Za-z]|\r", "", text)


def _shown(clock: Clock, width: int, total: int | None = 10_000) -> str:
    with terminal(width) as screen:
        bar = BatchBar(total, done=3000)
        bar.update(3000, 3, 0)
        _run(bar, clock, seconds=60, done=4120)
        screen.new()
        clock.now += 0.2
        bar.update(4120, 3, 812 * 60)
        return _plain(screen.new())


def test_a_wide_terminal_sees_everything(clock: Clock) -> None:
    shown = _shown(clock, 120)
    assert shown.startswith("▕█████████")
    head, _, rest = shown.partition("▏ 4")
    assert len(head) == 25
    for part in ("120/10,000", "3 errors", "tok/s", "rows/s", "8 m", "s left"):
        assert part in rest
    assert 780 < float(rest.split(" tok")[0].rsplit(" ", 1)[1]) < 830


def test_every_width_sees_what_matters_most(clock: Clock) -> None:
    with terminal(110) as screen:
        bar = BatchBar(10_000, done=3000)
        _run(bar, clock, seconds=60, done=4120)
        screen.new()
        for width in range(1, 110):
            screen.resize(width)
            clock.now += 0.2
            bar.update(4120, 3, 812 * 60)
            shown = _plain(screen.new())
            assert columns(shown) < max(2, width - 1)
            if width >= 16:
                assert "4,120/10,000" in shown
            if width >= 45:
                assert "3 errors" in shown
                assert "left" in shown


def test_without_a_total_there_is_no_bar_and_no_time_left(clock: Clock) -> None:
    shown = _shown(clock, 120, None)
    assert shown.startswith("4,120 rows · 3 errors · 8")
    assert "left" not in shown
    assert "▕" not in shown


def test_a_line_that_a_narrower_terminal_has_wrapped_is_taken_away(clock: Clock) -> None:
    with terminal(100) as screen:
        bar = BatchBar(10_000)
        _run(bar, clock, seconds=30, done=4120)
        width = columns(_plain(screen.new().rpartition("\x1b[?7l")[2]))
        assert width > 80
        screen.resize(30)
        clock.now += 0.2
        bar.update(4121, 3, 1)
        assert f"\r\x1b[{(width - 1) // 30}A4,121/10,000" in screen.new()
        bar.finish()
        bar.finish()
        assert _plain(screen.new()) == ""


def test_a_file_sees_a_line_each_half_minute(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    bar = BatchBar(10_000, done=3000)
    _run(bar, clock, seconds=100, done=4120)
    bar.finish()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "3 errors" in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_rows_of_an_earlier_run_are_no_speed(
    clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    bar = BatchBar(10_000, done=9000)
    clock.now += 31
    bar.update(9031, 0, 310)
    assert "9,031/10,000 · 10 tok/s · 1.0 rows/s" in capfd.readouterr().err


def test_the_speed_is_that_of_late(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    bar = BatchBar(None)
    done = 0
    for rate in (100, 2):
        for _ in range(400):
            clock.now += 0.25
            done += rate
            bar.update(done, 0, done)
    assert "8 tok/s · 8.0 rows/s" in capfd.readouterr().err.splitlines()[-1]


def test_slow_rows_have_a_speed_too(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    bar = BatchBar(100)
    for done in range(1, 13):
        for _ in range(40):
            clock.now += 1
            bar.update(done, 0, 40 * done)
    assert "1.5 rows/min · 58 m" in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_signal_asks_for_a_line(
    clock: Clock, capfd: pytest.CaptureFixture[str], quiet: bool
) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    bar = BatchBar(10, quiet=quiet)
    with bar.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert capfd.readouterr().err == ""
        bar.update(4, 1, 9)
        assert capfd.readouterr().err == "4/10 · 1 error\n"
        bar.update(5, 1, 9)
        assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGUSR1) == before


def test_who_wants_quiet_gets_it(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    bar = BatchBar(10_000, quiet=True)
    _run(bar, clock, seconds=100, done=4120)
    bar.finish()
    assert capfd.readouterr().err == ""
