"""What the prompts of many rows have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def common_prefix(prompts: Iterable[Sequence[int]]) -> list[int]:
    """Give the longest beginning that all prompts share, as tokens. At least one token of each is
    left over: what follows a prompt is told by its last one. Of no prompts, it is empty.
    """
    prefix: list[int] | None = None
    for prompt in prompts:
        if prefix is None:
            prefix = list(prompt[: max(0, len(prompt) - 1)])
        else:
            del prefix[max(0, len(prompt) - 1) :]
            _cut(prefix, prompt)
        if not prefix:
            return []
    return prefix or []


def _cut(prefix: list[int], prompt: Sequence[int]) -> None:
    """Shorten a list to what it shares with a prompt that is no shorter."""
    start = list(prompt[: len(prefix)])
    if start == prefix:  # nearly always, and compared at the speed of memory
        return
    low, high = 0, len(prefix)  # the first `low` are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if start[low:middle] == prefix[low:middle]:
            low = middle
        else:
            high = middle
    del prefix[low:]
