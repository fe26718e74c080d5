"""Cuts a stream of bytes into lines, in constant memory; knows no format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class TooLong:
    """Stands for a line that was passed over.

    Attributes:
        quotes: How many quotation marks were in it.
    """

    quotes: int = 0


class Splitter:
    """Gives the lines of a stream, without what separates them; iterate over it once.

    Args:
        blocks: The stream, in pieces of any size, the first of which holds a byte order mark whole
            if there is one.
        separator: One byte.
        limit: Bytes of the longest line.

    Attributes:
        offset: Bytes up to the end of the line given last, and of all when they have ended.
        line: Its number, from 1.
    """

    def __init__(self, blocks: Iterable[bytes], separator: bytes, limit: int) -> None:
        self._blocks, self._separator, self._limit = blocks, separator, limit
        self._hash = hashlib.sha256()
        self._block, self._place, self._before = b"", 0, 0
        self._hashed = 0  # bytes of this block that are in the digest
        self.line = 0

    @property
    def offset(self) -> int:  # noqa: D102 - above
        return self._before + self._place

    def digest(self) -> str:
        """Give the SHA-256 of the bytes up to `offset`, in hexadecimal."""
        self._hash.update(memoryview(self._block)[self._hashed : self._place])
        self._hashed = self._place
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes | TooLong]:
        """Cut the stream."""
        kept = bytearray()  # the beginning of a line that goes on in the next block
        size, quotes = 0, 0  # of that line, the second only when nothing of it is kept
        for block in self._blocks:
            self._begin(block)
            lines = block.split(self._separator)
            if not self._before and lines[0].startswith(BOM):
                lines[0] = lines[0][len(BOM) :]
                self._place = len(BOM)
            last = lines.pop()
            for line in lines:
                self._place += len(line) + 1
                self.line += 1
                if size or len(line) > self._limit:
                    long = size + len(line) > self._limit
                    quotes += kept.count(b'"') + line.count(b'"')
                    yield TooLong(quotes) if long else bytes(kept) + line
                    kept, size, quotes = bytearray(), 0, 0
                else:
                    yield line
            self._place += len(last)
            size += len(last)
            if size > self._limit:
                quotes += kept.count(b'"') + last.count(b'"')
                kept = bytearray()
            else:
                kept += last
        if size:
            self.line += 1
            yield TooLong(quotes) if size > self._limit else bytes(kept)

    def _begin(self, block: bytes) -> None:
        self._hash.update(memoryview(self._block)[self._hashed :])
        self._before += len(self._block)
        self._block, self._place, self._hashed = block, 0, 0
