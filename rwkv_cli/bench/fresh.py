"""What only a fresh process shows: the time from its start to a first token, and the most memory
it takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rwkv_cli.errors import RwkvError

_BLOCK = 1 << 12


@dataclass(frozen=True, slots=True)
class Fresh:
    """One process.

    Attributes:
        first_s: Seconds from its start to the first byte of its answer.
        peak: Most bytes of memory it held; None where the system does not tell.
    """

    first_s: float
    peak: int | None


def fresh_process(module: str, arguments: Sequence[str]) -> Fresh:
    """Run a module that writes an answer to stdout and, as the last line of stderr, its peak.

    Raises:
        RwkvError: It failed; the message is what it said.
    """
    # -P: nothing is imported from the folder this was called in.
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    begin = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - this very program
        [sys.executable, *safe, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), _BLOCK)
        first = time.perf_counter() - begin
        while os.read(process.stdout.fileno(), _BLOCK):
            pass
        said = process.stderr.read().decode("utf-8", "replace").strip()
    *complaint, last = said.splitlines() or [""]
    if process.returncode != 0:
        lines = complaint or [last]
        raise RwkvError(f"a fresh process failed: {lines[0].removeprefix('rwkv: ')}")
    return Fresh(first, int(last) if last.isdigit() else None)
