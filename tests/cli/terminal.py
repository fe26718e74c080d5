"""A terminal for tests: runs a command on a pseudo-terminal and keeps its screen with pyte."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from types import TracebackType

import pyte

# Makes the pseudo-terminal the one that Ctrl-C in it reaches, then becomes the command.
_LAUNCH = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class _Screen(pyte.HistoryScreen):
    """A screen that answers the questions programs ask of a terminal."""

    def __init__(self, columns: int, rows: int, answer: Callable[[bytes], None]) -> None:
        super().__init__(columns, rows, history=2000)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data.encode())


class Terminal:
    """A command on a terminal of its own.

    Args:
        drawn: Whether to keep its screen, which takes more time than most commands.

    Attributes:
        output: Every byte the command wrote.
        process: The command.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: dict[str, str],
        *,
        columns: int = 80,
        rows: int = 24,
        stderr: int | None = None,
        drawn: bool = True,
    ) -> None:
        self._master, slave = pty.openpty()
        self.output = bytearray()
        self._drawn = drawn
        self._screen = _Screen(columns, rows, self.send)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, rows)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave if stderr is None else stderr,
            env=env,
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def send(self, data: bytes) -> None:
        """Type."""
        os.write(self._master, data)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window another size."""
        self._screen.resize(rows, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def text(self) -> str:
        """Give everything shown so far, lines that scrolled away included."""
        columns = self._screen.columns
        gone = ["".join(line[i].data for i in range(columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in (*gone, *self._screen.display)).rstrip()

    def line(self) -> str:
        """Give the line the cursor is in."""
        return self._screen.display[self._screen.cursor.y].rstrip()

    def pump(self, seconds: float) -> bool:
        """Take what the command writes within a time; False when it wrote nothing."""
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the other side is closed
                raise
            data = b""
        self.output += data
        if self._drawn:
            self._stream.feed(data)
        return bool(data)

    def wait_until(self, seen: Callable[[], bool], what: object, timeout: float = 30) -> None:
        """Wait until something is true of the screen."""
        end = time.monotonic() + timeout
        while not seen():
            if time.monotonic() > end:
                raise AssertionError(f"{what!r} did not come; the screen:\n{self.text()}")
            self.pump(0.05)

    def wait_for(self, text: str, timeout: float = 30) -> None:
        """Wait until a text is shown."""
        self.wait_until(lambda: text in self.text(), text, timeout)

    def wait_quiet(self, seconds: float = 0.3) -> None:
        """Wait until nothing is written for a while."""
        while self.pump(seconds):
            pass

    def finish(self, timeout: float = 30) -> int:
        """Wait for the command to end: its exit status."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"it did not end; the screen:\n{self.text()}")
            self.pump(0.05)
        while self.pump(0.05):
            pass
        assert self.process.returncode is not None
        return self.process.returncode

    def modes(self) -> int:
        """Give the terminal's local modes, such as ECHO."""
        flags: int = termios.tcgetattr(self._master)[3]
        return flags

    def modes_of_input(self) -> int:
        """Give the terminal's input modes, such as ICRNL."""
        flags: int = termios.tcgetattr(self._master)[0]
        return flags

    def set_modes_of_input(self, flags: int) -> None:
        """Change them, as another program on the terminal does."""
        modes = termios.tcgetattr(self._master)
        modes[0] = flags
        termios.tcsetattr(self._master, termios.TCSANOW, modes)

    def kill(self) -> None:
        """End the command without letting it do anything."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
