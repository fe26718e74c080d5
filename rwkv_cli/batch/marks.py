"""A set of row numbers that stays small: one bit for each row."""

from __future__ import annotations


class Marks:
    """A set of whole numbers from 0, in about as many bits as the largest of them."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        place = number >> 3
        return place < len(self._bits) and bool(self._bits[place] >> (number & 7) & 1)

    def add(self, number: int) -> bool:
        """Put a number in; False when it is in already."""
        place, bit = number >> 3, 1 << (number & 7)
        if place >= len(self._bits):
            self._bits.extend(bytes(max(place + 1, 2 * len(self._bits)) - len(self._bits)))
        if self._bits[place] & bit:
            return False
        self._bits[place] |= bit
        self._count += 1
        return True

    def discard_all(self, others: Marks) -> None:
        """Take out what is in another set, all of which must be in this one."""
        for place, bits in enumerate(others._bits):
            if bits:
                self._bits[place] &= ~bits
        self._count -= len(others)
