"""What `rwkv generate -i` tells on stderr: how far it is, what failed first, what came of it."""

from __future__ import annotations

import time

from rwkv_cli.batch.driving import Run
from rwkv_cli.batch.output import Output
from rwkv_cli.render.batchbar import BatchBar
from rwkv_cli.render.progress import clock, counted
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.style import dim

_TENTHS = 10.0  # seconds up to which tenths are told


class BatchReport:
    """Tells of one run.

    Args:
        run: That one.
        total: How many rows are asked for; None when nobody knows.
        output: What holds the rows of earlier runs; None when they go to stdout.
        quiet: Tell nothing but what a signal asks for.

    Attributes:
        bar: Shows how far it is.
    """

    def __init__(self, run: Run, total: int | None, output: Output | None, *, quiet: bool) -> None:
        self._run, self._total, self._quiet = run, total, quiet
        self._before = len(output.done) if output else 0
        self._failed_before = len(output.failed) if output else 0
        self.bar = BatchBar(total, done=self._before, errors=self._failed_before, quiet=quiet)
        self._began = time.monotonic()
        self._read = self._written = 0
        self._told = quiet

    @property
    def done(self) -> str:
        """Say how many rows are done, those of earlier runs among them."""
        done = self._before + self._run.answered
        if self._total is None:
            return counted(done, "row")
        return f"{done:,} of {counted(self._total, 'row')}"

    def tick(self, read: int, written: int) -> None:
        """Show how far it is.

        Args:
            read: Tokens of prompts that were read.
            written: Tokens of answers.
        """
        run = self._run
        self._read, self._written = read, written
        self._tell_failure()
        self.bar.update(
            self._before + run.answered, self._failed_before + run.failed, read + written
        )

    def finish(self) -> None:
        """Take the bar away."""
        self.bar.finish()
        self._tell_failure()

    def summary(self) -> str:
        """Say what came of the run, in a line."""
        run, seconds = self._run, time.monotonic() - self._began
        rows = [counted(run.answered, "row")]
        if self._before:
            rows.append(f"{self._before:,} before")
        if run.failed:
            rows.append(f"{run.failed:,} failed")
        speed = (self._read + self._written) / max(seconds, 1e-9)
        taken = f"{seconds:.1f} s" if seconds < _TENTHS else clock(seconds)
        tokens = f"{counted(self._read, 'token')} read, {self._written:,} written"
        parts = [", ".join(rows), tokens, taken, f"{speed:,.0f} tokens/s"]
        return f"[{' · '.join(parts)}]"

    def _tell_failure(self) -> None:
        """Say why a row failed, of the first that does: others may well fail alike, and who is told
        at once can stop.
        """
        if self._run.first_failure and not self._told:
            index, error = self._run.first_failure
            self._told = True
            self.bar.say(dim(safe(f"row {index:,} failed: {error.message}")))
