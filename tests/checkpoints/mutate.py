"""Damages files on purpose; knows where to hit, not what the bytes mean."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

# Lengths and counts a reader must survive, as 2, 4 or 8 little-endian bytes.
_EXTREMES = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def mutants(
    seed_bytes: bytes, rng: random.Random, count: int, marks: Sequence[int]
) -> Iterator[bytes]:
    """Yields damaged copies of a file, the same ones for the same random state.

    Args:
        seed_bytes: A sound file.
        rng: Decides everything.
        count: How many copies.
        marks: Offsets of fields worth hitting: lengths, counts, starts of records.
    """
    spots = sorted({mark for mark in marks if 0 <= mark < len(seed_bytes)}) or [0]
    for index in range(count):
        damage = _DAMAGES[index % len(_DAMAGES)]
        yield damage(seed_bytes, rng, spots)


def _flip_anywhere(data: bytes, rng: random.Random, _: Sequence[int]) -> bytes:
    return _flip(data, rng, [rng.randrange(len(data)) for _ in range(rng.choice((1, 1, 2, 8)))])


def _flip_at_marks(data: bytes, rng: random.Random, marks: Sequence[int]) -> bytes:
    hits = [min(rng.choice(marks) + rng.randrange(4), len(data) - 1) for _ in range(2)]
    return _flip(data, rng, hits)


def _flip(data: bytes, rng: random.Random, hits: Sequence[int]) -> bytes:
    damaged = bytearray(data)
    for at in hits:
        damaged[at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _overwrite_number(data: bytes, rng: random.Random, marks: Sequence[int]) -> bytes:
    at, width = rng.choice(marks), rng.choice((2, 4, 8))
    number = (rng.choice(_EXTREMES) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return data[:at] + number + data[at + width :]


def _nudge_number(data: bytes, rng: random.Random, marks: Sequence[int]) -> bytes:
    """Off by a little, the damage that range checks miss."""
    at, width = rng.choice(marks), rng.choice((2, 4, 8))
    value = int.from_bytes(data[at : at + width], "little") + rng.choice((-2, -1, 1, 2, 4, 64))
    number = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return data[:at] + number + data[at + width :]


def _truncate(data: bytes, rng: random.Random, marks: Sequence[int]) -> bytes:
    cuts = (rng.randrange(len(data)), rng.choice(marks), len(data) - rng.randrange(1, 100))
    return data[: max(0, rng.choice(cuts))]


def _splice(data: bytes, rng: random.Random, _: Sequence[int]) -> bytes:
    """Copies one stretch over another place."""
    length = rng.randrange(1, 64)
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    return data[:target] + data[source : source + length] + data[target + length :]


def _duplicate(data: bytes, rng: random.Random, marks: Sequence[int]) -> bytes:
    """Repeats a record: the bytes between two marks."""
    start, end = sorted((rng.choice(marks), rng.choice(marks)))
    return data[:end] + data[start:end] + data[end:]


def _delete(data: bytes, rng: random.Random, marks: Sequence[int]) -> bytes:
    at = rng.choice(marks)
    return data[:at] + data[at + rng.randrange(1, 32) :]


def _blank(data: bytes, rng: random.Random, _: Sequence[int]) -> bytes:
    """A hole of equal bytes, as a broken download leaves it."""
    at, length = rng.randrange(len(data)), rng.randrange(1, 256)
    hole = bytes((rng.choice((0, 255)),)) * min(length, len(data) - at)
    return data[:at] + hole + data[at + length :]


def _append(data: bytes, rng: random.Random, _: Sequence[int]) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 64))


_DAMAGES: tuple[Callable[[bytes, random.Random, Sequence[int]], bytes], ...] = (
    _flip_anywhere,
    _flip_at_marks,
    _overwrite_number,
    _nudge_number,
    _truncate,
    _splice,
    _duplicate,
    _delete,
    _blank,
    _overwrite_number,
    _flip_at_marks,
    _append,
)
