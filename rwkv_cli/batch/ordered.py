"""Rows to a pipe or a terminal: in the order of the input, or as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Write = Callable[[bytes], None]


class Ordered:
    """Gives lines on in the order in which their rows were begun.

    A row that takes long holds back those behind it. So that they fit into memory, no more rows are
    begun once too much is held; the row that all wait for is in work already, so this ends.

    Args:
        write: Takes a line; what it raises, such as BrokenPipeError, goes through.
        rows: Most rows that are begun and not yet written.
        limit: Most bytes of lines that are held while more rows are begun.
    """

    def __init__(self, write: Write, *, rows: int = 100_000, limit: int = 16 << 20) -> None:
        self._write, self._most, self._limit = write, rows, limit
        self._begun: deque[int] = deque()
        self._held: dict[int, bytes] = {}
        self._bytes = 0

    @property
    def room(self) -> bool:
        """Whether another row may be begun."""
        return self._bytes <= self._limit and len(self._begun) < self._most

    def expect(self, index: int) -> None:
        """A row is begun; its line comes behind those of all that were begun before."""
        self._begun.append(index)

    def add(self, index: int, line: bytes, *, failed: bool = False) -> None:
        """Take the line of a row, and write all whose turn it is."""
        del failed  # an error is a line like any other
        self._held[index] = line
        self._bytes += len(line)
        while self._begun and self._begun[0] in self._held:
            line = self._held.pop(self._begun.popleft())
            self._bytes -= len(line)
            self._write(line)

    def tick(self) -> None:
        """Nothing becomes due with time."""


class Unordered:
    """Gives lines on as they come.

    Args:
        write: As for `Ordered`.
    """

    room = True  # whether another row may be begun

    def __init__(self, write: Write) -> None:
        self._write = write

    def expect(self, index: int) -> None:
        """A row is begun; nothing follows from that here."""

    def add(self, index: int, line: bytes, *, failed: bool = False) -> None:
        """Write the line of a row."""
        del index, failed
        self._write(line)

    def tick(self) -> None:
        """Nothing becomes due with time."""
