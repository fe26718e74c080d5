"""Whether a stream that cannot be read twice is still the one that an output was made from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rwkv_cli.errors import UsageError

Digest = Callable[[], str]


class Stream:
    """How far a stream was read, against how far it was read when its output was made.

    Whether it is the same shows only when as much of it is read as before. Until then its rows wait
    in memory: at most those that were in work when the run before this one ended. From then on, a
    row is written only when the manifest knows the stream up to it, durably, so that no row is
    there that could not be checked next time.

    Args:
        output: What is made from it.
        rows: How many of it the manifest knows.
        sha256: Of the stream up to there.

    Attributes:
        known: Whether it is the same.
    """

    def __init__(self, output: Path, rows: int, sha256: str) -> None:
        self._output, self._rows, self._sha256 = output, rows, sha256
        self.known = rows == 0
        self._read = 0
        self._digest: Digest | None = None

    def reached(self, rows: int, digest: Digest) -> None:
        """So many rows were read.

        Raises:
            UsageError: They are others than before.
        """
        self._read, self._digest = rows, digest
        if not self.known and rows == self._rows:
            if digest() != self._sha256:
                raise self._other(f"its first {rows:,} rows were not those")
            self.known = True

    def covers(self, index: int) -> bool:
        """Tell whether a row may be written."""
        return self.known and index < self._rows

    def further(self) -> tuple[int, str] | None:
        """Give rows and digest, when more was read than the manifest knows."""
        if not self.known or self._read <= self._rows or self._digest is None:
            return None
        return self._read, self._digest()

    def saved(self, rows: int) -> None:
        """The manifest knows that many rows, durably."""
        self._rows = rows

    def ended(self) -> None:
        """There are no more rows.

        Raises:
            UsageError: There were more before.
        """
        if not self.known:
            raise self._other(f"that had {self._rows:,} rows or more, this one has {self._read:,}")

    def _other(self, why: str) -> UsageError:
        return UsageError(
            f"{self._output} was made from another stream: {why}",
            hint="choose another -o, or throw its rows away with --restart",
        )
