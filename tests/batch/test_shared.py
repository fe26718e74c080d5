"""The tokens that all prompts begin with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rwkv_cli.batch.shared import common_prefix


def plainly(prompts: Sequence[Sequence[int]]) -> list[int]:
    shared = list[int]()
    for column in zip(*(prompt[:-1] for prompt in prompts), strict=False):
        if len(set(column)) != 1:
            break
        shared.append(column[0])
    return shared


def test_the_prefix_is_the_longest_that_leaves_each_prompt_a_token(tries: int) -> None:
    rng = random.Random(1)
    for _ in range(tries):
        base = rng.choices(range(3), k=rng.randrange(30))
        prompts = [
            base + rng.choices(range(3), k=rng.randrange(4)) for _ in range(rng.randrange(5))
        ]
        prompts += [base[: rng.randrange(40)]] * rng.randrange(2)
        assert common_prefix(iter(prompts)) == plainly(prompts)


def test_the_prompts_stay_as_they_are() -> None:
    prompts = [[1, 2, 3], [1, 2, 4], (1, 5)]
    assert common_prefix(prompts) == [1]
    assert prompts == [[1, 2, 3], [1, 2, 4], (1, 5)]


def test_once_nothing_is_shared_no_more_is_read() -> None:
    prompts = iter([[1, 2], [3, 4], [1, 2]])
    assert common_prefix(prompts) == []
    assert list(prompts) == [[1, 2]]
