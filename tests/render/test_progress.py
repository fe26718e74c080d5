"""Progress is seen by people who wait, and by nobody else."""

from __future__ import annotations

import os
import pty
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rwkv_cli.render.progress import Progress, counted, speed
from rwkv_cli.render.style import dim


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@contextmanager
def terminal_as_stderr() -> Iterator[int]:
    """Make stderr a terminal; gives the other side of it."""
    master, slave = pty.openpty()
    keep = os.dup(2)
    os.dup2(slave, 2)
    try:
        yield master
    finally:
        os.dup2(keep, 2)
        for descriptor in (keep, slave, master):
            os.close(descriptor)


def test_short_work_shows_nothing(clock: Clock) -> None:
    with terminal_as_stderr() as master:
        progress = Progress("reading", "bytes", 100, enabled=True)
        clock.now += 0.4
        progress.update(50)
        progress.finish()
        os.write(2, b".")
        assert os.read(master, 100) == b"."


def test_a_terminal_sees_one_line_that_goes_away(clock: Clock) -> None:
    with terminal_as_stderr() as master:
        progress = Progress("reading \x1b[31m" + "x" * 300, "bytes", 4_000_000, enabled=True)
        clock.now += 2
        progress.update(1_000_000)
        shown = os.read(master, 10000)
        progress.finish()
        assert b"reading" in shown
        assert b"[31m" not in shown.replace("␛[31m".encode(), b"")
        assert b"\n" not in shown
        assert len(shown.decode()) < 120
        assert os.read(master, 100) == b"\r\x1b[K"


def test_a_file_sees_a_line_now_and_then(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress("reading", "bytes", 4_000_000, enabled=True)
    for _ in range(250):
        clock.now += 0.1
        progress.update(1_000_000)
    progress.finish()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "25 %" in lines[0]
    assert "1.0 MB" in lines[0]
    assert "\x1b" not in lines[0]


def test_who_wants_no_progress_gets_none(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    progress = Progress("reading", "bytes", None, enabled=False)
    clock.now += 100
    progress.update(1)
    progress.finish()
    assert capfd.readouterr().err == ""


def test_notes_are_dim_on_a_terminal_that_wants_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert dim("x") == "x"
    with terminal_as_stderr():
        colored = dim("x")
        monkeypatch.setenv("NO_COLOR", "1")
        plain = dim("x")
    assert (colored, plain) == ("\x1b[2mx\x1b[0m", "x")


def test_figures_read_well() -> None:
    assert (counted(1, "token"), counted(1200, "token")) == ("1 token", "1,200 tokens")
    assert speed(10, 0.5) == "50.0 ms/token, 20.0 tokens/s"
    assert speed(0, 1) == "no tokens"
