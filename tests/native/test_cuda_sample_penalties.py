"""Penalties within the CUDA kernel that draws are the host's, in every pass and over a run."""

from __future__ import annotations

import numpy as np
import pytest
from oracle.cuda_draws import Batch, assert_drawn, bits
from oracle.cuda_host import compiler
from oracle.cuda_rows import Addresses, launch

from rwkv_cli.native.cuda.structures import constants
from rwkv_cli.sampling import UNCOUNTED, Penalties, Sampling, draw_plainly, uniform

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no g++")


def texts_of(vocab: int) -> list[bytes]:
    return [b"%d" % (t % 10) if t % 3 == 0 else b"word %d" % t for t in range(vocab)]


@pytest.mark.parametrize("has_bits", [True, False])
@pytest.mark.parametrize("vocab", [77, 1500])
def test_penalties_of_a_run_are_the_hosts(vocab: int, has_bits: bool) -> None:
    texts, rng = texts_of(vocab), np.random.default_rng(vocab)
    uncounted = bits(np.array([text in UNCOUNTED for text in texts]), vocab)
    s = Sampling(1.0, 0.9, presence=0.4, frequency=0.7, penalty_decay=0.97)
    theirs = Penalties([3, 60], [2.5, 0.0])
    counts, seen = np.full(vocab, -1, np.float32), bits([3, 60], vocab)
    counts[theirs.ids] = theirs.counts
    batch = Batch(np.zeros((1, vocab)), [s], 6, counts=[counts], uncounted=uncounted)
    batch.seen = [seen] if has_bits else []
    for step in range(50):
        batch.logits[0] = rng.normal(0, 2, vocab)
        logits = batch.logits[0].copy()
        theirs.apply(logits, s)
        (token,) = batch.draw()
        assert token == draw_plainly(logits, s, uniform(6, 3, step))
        theirs.record(token, texts[token], s.penalty_decay)
    assert batch.position.tolist() == [50]
    assert counts[theirs.ids].tolist() == theirs.counts.tolist()
    assert (np.delete(counts, theirs.ids) == -1).all()
    if has_bits:
        assert seen.tolist() == bits(theirs.ids.tolist(), vocab).tolist()


def test_penalties_reach_the_weights_after_the_filters_and_in_every_pass() -> None:
    vocab, rng = 3000, np.random.default_rng(9)
    samplings = [
        Sampling(temperature, top_p, top_k, presence=3, frequency=0.5)
        for temperature, top_p, top_k in (
            (0.5, 0.9, 0),
            (2.0, 0.99, 0),
            (0.7, 1.0, 0),
            (3.0, 1.0, 1300),
        )
    ]
    rows = rng.normal(0, 1, (4, vocab)).astype(np.float32)
    counts = np.where(rng.random((4, vocab)) < 0.3, rng.random((4, vocab)) * 4, -1).astype(
        np.float32
    )
    batch = Batch(rows, samplings, counts=list(counts.copy()))
    batch.seen = [bits(row >= 0, vocab) for row in counts]
    for place, (token, s) in enumerate(zip(batch.draw(), samplings, strict=True)):
        logits, row = rows[place].copy(), counts[place]
        Penalties(np.flatnonzero(row >= 0), row[row >= 0]).apply(logits, s)
        assert_drawn(logits, s, uniform(0, 3, place), token)


def test_a_sequence_without_counts_stands_beside_one_that_has_them() -> None:
    rows = np.random.default_rng(4).normal(0, 1, (2, 200)).astype(np.float32)
    best = rows.argmax(1).tolist()
    counts = np.full(200, -1, np.float32)
    counts[best[0]] = 50
    batch = Batch(rows, [Sampling(0.0)] * 2, counts=[counts, None])
    first, second = batch.draw()
    assert first != best[0]
    assert second == best[1]
    assert counts[first] == 1


def test_a_number_that_is_given_decides_and_nothing_is_counted() -> None:
    vocab, rng = 300, np.random.default_rng(2)
    rows = rng.normal(0, 2, (6, vocab)).astype(np.float32)
    s, numbers = Sampling(1.1, 0.9, presence=0.5, frequency=0.5), rng.random(6)
    counts = [np.full(vocab, -1, np.float32) for _ in rows]
    for row in counts:
        row[rng.integers(0, vocab, 40)] = 1.5
    before = [row.copy() for row in counts]
    batch = Batch(rows, [s] * 6, counts=counts, uniform=numbers)
    for place, token in enumerate(batch.draw()):
        logits, row = rows[place].copy(), before[place]
        Penalties(np.flatnonzero(row >= 0), row[row >= 0]).apply(logits, s)
        assert_drawn(logits, s, float(numbers[place]), token)
    assert all(np.array_equal(a, b) for a, b in zip(counts, before, strict=True))


def test_counts_are_put_down_and_taken_away_again() -> None:
    vocab, starts = 700, np.array([0, 300, 300, 303], np.int32)
    ids = np.concatenate((np.arange(64, 364), [0, 699, 31])).astype(np.uint32)
    numbers = np.random.default_rng(1).random(303).astype(np.float32)
    counts = [np.full(vocab, -1, np.float32), None, np.full(vocab, -1, np.float32)]
    seen = [bits([], vocab), None, bits([], vocab)]
    for clears in (0, 1):
        launch(
            "sample_counts", "SampleCountsArguments", (3, 1, 1), constants()["kCountThreads"],
            starts=starts, ids=ids, numbers=numbers, counts=Addresses(counts),
            seen=Addresses(seen), clears=clears,
        )  # fmt: skip
        for row, part in ((0, slice(0, 300)), (2, slice(300, 303))):
            expected = np.full(vocab, -1, np.float32)
            if not clears:
                expected[ids[part]] = numbers[part]
            assert np.array_equal(counts[row], expected)
            marked = [] if clears else ids[part].tolist()
            assert np.array_equal(seen[row], bits(marked, vocab))
