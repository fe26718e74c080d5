"""Finds stop strings in a stream of bytes; knows no tokens and no characters."""

from __future__ import annotations

from collections.abc import Sequence

from rwkv_cli.errors import UsageError


class StopMatcher:
    """Searches a stream for stop strings that may lie across the borders of its pieces.

    The match that starts earliest wins. Bytes that may yet turn out to begin a stop string are held
    back, and no others. What is shown does not depend on how the stream is split.

    Attributes:
        held: Bytes not shown: the longest end of the stream that begins a stop string; after a
            stop, the stop string and whatever was fed after it.
        matched: The stop string that was found, the longest if several start there; None before.
    """

    def __init__(self, stops: Sequence[bytes]) -> None:
        """Search for these; none of them finds nothing.

        Raises:
            UsageError: A stop string is empty.
        """
        if b"" in stops:
            raise UsageError("a stop string is empty: it would stop before the first byte")
        self._stops = tuple(stops)
        self.held = b""
        self.matched: bytes | None = None

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take the next bytes; give those now safe to show, and whether a stop string was found."""
        self.held += data
        if self.matched is not None:
            return b"", True
        found = self._first_match()
        partial = self._first_partial()
        # A stop string inside what may become an earlier one has to wait for it.
        if found is None or partial < found:
            return self._release(partial), False
        return self._stop_at(found), True

    def flush(self) -> bytes:
        """End the stream: give the bytes that were held only because more might have come.

        A stop string that was waiting for an earlier one is found now; `matched` tells.
        """
        if self.matched is not None:
            return b""
        found = self._first_match()
        return self._release(len(self.held)) if found is None else self._stop_at(found)

    def _release(self, count: int) -> bytes:
        shown, self.held = self.held[:count], self.held[count:]
        return shown

    def _stop_at(self, start: int) -> bytes:
        self.matched = max((s for s in self._stops if self.held.startswith(s, start)), key=len)
        return self._release(start)

    def _first_match(self) -> int | None:
        starts = [start for stop in self._stops if (start := self.held.find(stop)) >= 0]
        return min(starts, default=None)

    def _first_partial(self) -> int:
        """Where the longest end of the held bytes starts that only begins a stop string."""
        size = len(self.held)
        for start in range(max(0, size - max(map(len, self._stops), default=1) + 1), size):
            tail = self.held[start:]
            if any(len(stop) > len(tail) and stop.startswith(tail) for stop in self._stops):
                return start
        return size
