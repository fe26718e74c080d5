"""Random numbers by counting: the number that belongs to a place, with no state to carry.

Philox-4x64 with ten rounds, as numpy has it (Salmon and others, "Parallel random numbers: as easy
as 1, 2, 3", 2011, section 3.3), in plain Python: loading numpy's own costs more than a thousand
draws.
"""

from __future__ import annotations

_MASK = 2**64 - 1
_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # golden ratio, square root of 3 less 1


def philox(key: tuple[int, int], counter: int) -> int:
    """Give the first of the four numbers below 2^64 that numpy's `Philox(key=key, counter=counter)`
    draws; it counts up before it draws.

    Args:
        key: Two numbers below 2^64.
        counter: Below 2^256 - 1.
    """
    counter += 1
    a, b, c, d = (counter >> shift & _MASK for shift in (0, 64, 128, 192))
    left, right = key
    for _ in range(10):
        first, second = a * _FACTORS[0], c * _FACTORS[1]
        a, b = second >> 64 ^ b ^ left, second & _MASK
        c, d = first >> 64 ^ d ^ right, first & _MASK
        left, right = left + _STEPS[0] & _MASK, right + _STEPS[1] & _MASK
    return a
