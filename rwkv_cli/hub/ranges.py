"""Which bytes of a file are there: a set of ranges."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

Range = tuple[int, int]  # from, up to but not including


class Ranges:
    """Ranges that do not touch each other, in order."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for begin, end in ranges:
            self.add(begin, end)

    def add(self, begin: int, end: int) -> None:
        """Add a range; it may overlap with what is there."""
        if begin >= end:
            return
        at = bisect.bisect_left(self._ranges, (begin, begin))
        if at and self._ranges[at - 1][1] >= begin:
            at -= 1
        last = at
        while last < len(self._ranges) and self._ranges[last][0] <= end:
            last += 1
        touched = self._ranges[at:last]
        begin = min([begin, *(b for b, _ in touched)])
        end = max([end, *(e for _, e in touched)])
        self._ranges[at:last] = [(begin, end)]

    def gaps(self, size: int) -> list[Range]:
        """List what is missing up to a size."""
        found, at = [], 0
        for begin, end in self._ranges:
            if begin > at:
                found.append((at, min(begin, size)))
            at = end
        if at < size:
            found.append((at, size))
        return found

    def to_list(self) -> list[Range]:
        """List them."""
        return list(self._ranges)

    @property
    def total(self) -> int:
        """How many bytes they are."""
        return sum(end - begin for begin, end in self._ranges)

    @property
    def front(self) -> int:
        """How many bytes are there from the beginning on, without a gap."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0
