"""Run a process and measure it from outside: first byte, output, memory."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.bench.machine import Watch

_BLOCK = 1 << 20


class FailedError(Exception):
    """A process failed; the message is the end of what it said."""


@dataclass(frozen=True)
class Run:
    """What a process did.

    Attributes:
        first_s: Seconds from its start to the first byte of its stdout, or to its end.
        output: Its stdout.
        peak: Most bytes of memory it held, mapped files included.
    """

    first_s: float
    output: bytes
    peak: int


def warm(file: Path) -> None:
    """Read a file once, so that it lies in the page cache."""
    block = bytearray(_BLOCK)
    with file.open("rb", buffering=0) as opened:
        while opened.readinto(block):
            pass


def wait_until_quiet(seconds: float) -> None:
    """Wait until no other program works, so many seconds at the longest."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and Watch().so_far().warning():
        pass


def run(command: Sequence[str], threads: int) -> Run:
    """Run a command to its end, the threads of OpenMP programs limited.

    Raises:
        FailedError: It ended with an error.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment
        )
        assert process.stdout is not None
        output, first = b"", 0.0
        while block := os.read(process.stdout.fileno(), _BLOCK):
            first = first or time.perf_counter() - begin
            output += block
        first = first or time.perf_counter() - begin
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            text = said.read().decode("utf-8", "replace").strip().splitlines()[-3:]
            raise FailedError(f"{command[0]}: exit status {process.returncode}: {' / '.join(text)}")
    return Run(first, output, usage.ru_maxrss * 1024)
