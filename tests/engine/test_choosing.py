"""Drawing for many rows at once in the C++ library against drawing for one: the same tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.native.choose import Penalty, Row, choose
from rwkv_cli.native.library import NativeError, unavailable_reason
from rwkv_cli.native.pool import Pool
from rwkv_cli.native.sample import Settings
from rwkv_cli.sampling import Choice, Penalties, Sampling, uniform
from rwkv_cli.sampling import choose as choose_alone

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no native library: {unavailable_reason()}"
)

CASES = int(os.environ.get("RWKV_TEST_CHOICES", "400"))
NOBODY = np.zeros(0, np.intp)


@pytest.fixture
def native(tiny: Callable[[str, str], Model]) -> Model:
    return tiny("v7", "native")


def _choice(rng: np.random.Generator, vocab: int) -> Choice:
    some = rng.permutation(vocab)[: rng.integers(0, min(vocab, 300))]
    penalties = Penalties(some, rng.random(len(some)).astype(np.float32) * 5)
    sampling = Sampling(
        temperature=float(rng.choice((0, 0.4, 1, 1, 2.5))),
        top_p=float(rng.choice((1, 0.85, 0.3, 0))),
        top_k=int(rng.choice((0, 0, 1, 40))),
        min_p=float(rng.choice((0, 0, 0.05))),
        presence=float(rng.choice((0, 0.2, -1.7))),
        frequency=float(rng.choice((0, 0.3, 2.9))),
        order=str(rng.choice(("rwkv", "openai"))),
    )
    never = rng.permutation(vocab)[: rng.integers(0, vocab // 2 + 1)].astype(np.intp)
    return Choice(sampling, float(rng.random()), penalties, never)


def _state(logits: np.ndarray) -> State:
    state = State({})
    state.logits = logits
    return state


@pytest.mark.parametrize("vocab", [2, 77, 256, 1027, 65536])
def test_many_draws_are_what_each_is_alone(native: Model, vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    for _ in range(max(1, CASES // 4 // (160 if vocab > 2000 else 20))):
        spread = rng.choice((0.5, 3.5, 20))
        rows = (rng.normal(0, spread, (20, vocab)) * 2).round(3).astype(np.float32)
        rows[rng.random(rows.shape) < 0.1] = -np.inf
        rows[3] = -np.inf
        rows[4, vocab // 2] = np.nan
        before, choices = rows.copy(), [_choice(rng, vocab) for _ in rows]
        alone = [choose_alone(row, choice) for row, choice in zip(rows, choices, strict=True)]
        found = native.engine.choose([_state(row) for row in rows], choices)
        assert found == alone
        assert found[3] == -1
        assert rows.tobytes() == before.tobytes(), "the logits were changed"


def test_nothing_is_drawn_for_nobody(native: Model) -> None:
    assert native.engine.choose([], []) == []


def test_logits_in_pieces_are_drawn_from(native: Model) -> None:
    row = np.repeat(np.arange(9, dtype=np.float32), 2)[::2]
    choice = Choice(Sampling(0.0), 0.5, Penalties(), NOBODY)
    assert native.engine.choose([_state(row)], [choice]) == [8]


def test_bad_rows_are_refused_at_the_border() -> None:
    logits, ids = np.zeros(9, np.float32), np.zeros(1, np.uint32)
    good = Row(
        logits,
        np.zeros(0, np.int64),
        Penalty(ids, np.ones(1, np.float32), 0.1, 0.1),
        Settings(0.5, 0, 1.0, 0.0, 0),
        0.5,
    )
    pool = Pool(2)
    assert choose(pool, [good]) in ([token] for token in range(9))
    for bad, said in (
        (good._replace(u=1.0), "out of range"),
        (good._replace(u=np.nan), "out of range"),
        (good._replace(settings=Settings(1.5, 0, 1.0, 0.0, 0)), "out of range"),
        (good._replace(never=np.array([9])), "banned token is outside"),
        (good._replace(never=np.array([-1])), "banned token is outside"),
        (good._replace(penalty=good.penalty._replace(ids=ids + 9)), "penalized token is outside"),
        (good._replace(penalty=good.penalty._replace(ids=ids[:0])), "the same number"),
        (good._replace(penalty=good.penalty._replace(presence=np.inf)), "not finite"),
        (good._replace(logits=logits[:8]), "the same length"),
        (good._replace(logits=logits.astype(np.float64)), "float32 in one piece"),
        (good._replace(never=np.zeros(1, np.int32)), "int64 in one piece"),
    ):
        with pytest.raises(NativeError, match=said):
            choose(pool, [good, bad])


def test_random_numbers_are_numpys_philox() -> None:
    rng = Random(5)
    edges = [0, 1, 2**53, 2**64 - 2, 2**64 - 1]
    for _ in range(100):
        seed, stream, position = (rng.choice(edges) ^ rng.randrange(99) for _ in range(3))
        key = np.array([seed, stream], dtype=np.uint64)
        raw = int(np.random.Philox(key=key, counter=position).random_raw())
        assert uniform(seed, stream, position) == (raw >> 11) * 2.0**-53
