"""The CUDA kernel draws the tokens that `sampling.draw_plainly` draws, unless rounding decides."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.cuda_draws import Batch, Floats, assert_drawn, bits
from oracle.cuda_host import compiler, host_kernels, is_sanitized

from rwkv_cli.errors import RefusedError
from rwkv_cli.sampling import Sampling, draw_plainly, uniform

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no g++")

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=60)


class PhiloxArguments(ctypes.Structure):
    _fields_ = [
        ("places", ctypes.c_void_p),
        ("numbers", ctypes.c_void_p),
        ("count", ctypes.c_int),
    ]


def assert_batch(rows: Sequence[Floats], samplings: Sequence[Sampling], seed: int) -> float:
    """Draw of each row by its settings as the host does; gives how many are the same token."""
    batch = Batch(np.stack(rows), list(samplings), seed)
    places = [uniform(seed, 3, position) for position in batch.position.tolist()]
    drawn = batch.draw()
    same = list(map(assert_drawn, rows, samplings, places, drawn))
    return sum(same) / len(same)


# --- random numbers -----------------------------------------------------------------------------


def test_random_numbers_are_numpys_bit_for_bit() -> None:
    edges = (0, 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)
    drawn = np.random.default_rng(0).integers(0, 2**64, (300, 3), dtype=np.uint64)
    places = np.array([*itertools.product(edges, repeat=3), *drawn.tolist()], np.uint64)
    numbers = np.zeros(len(places), np.uint64)
    arguments = PhiloxArguments(places.ctypes.data, numbers.ctypes.data, len(places))
    kernels = host_kernels("sample_kernels.cuh")  # no model needs this kernel: it runs here alone
    kernels.launch("philox_numbers", (1, 1, 1), 32, 0, arguments)
    expected = [
        int(np.random.Philox(key=place[:2], counter=int(place[2])).random_raw()) for place in places
    ]
    assert numbers.tolist() == expected


def test_a_draw_is_by_the_number_of_its_seed_stream_and_position() -> None:
    seed, position = 2**64 - 5, np.array([0, 1, 2**40, 2**62], np.int64)
    s = Sampling(1.0, 1.0)
    batch = Batch(np.zeros((4, 1000)), [s] * 4, seed, position.copy())
    assert batch.draw() == [int(1000 * uniform(seed, 3, int(place))) for place in position]
    assert batch.tokens.tolist() == batch.drawn.tolist()
    assert batch.position.tolist() == (position + 1).tolist()


# --- the host's tokens --------------------------------------------------------------------------

SETTINGS = [
    Sampling(temperature, top_p, top_k, min_p, order=order)
    for temperature, top_p, top_k, min_p, order in itertools.product(
        (1.0, 0.4, 2.5, 10.0),
        (1.0, 0.999, 0.85, 0.3, 1e-9, 0.0),
        (0, 1, 2, 50, 1 << 20),
        (0.0, 0.1, 1.0),
        ("rwkv", "openai"),
    )
]


def logits_of(kind: str, vocab: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, vocab)
    if kind == "peaked":
        logits = logits * 4
        logits[rng.integers(vocab)] = 25
    if kind == "broad":
        logits = logits * 2.5
    if kind == "far apart":
        logits = logits * 60
    if kind == "banned":
        logits[rng.random(vocab) < 0.5] = -np.inf
        logits[rng.integers(vocab)] = 3
    if kind == "tied":
        logits = np.round(logits)
    return logits.astype(np.float32)


KINDS = ("flat", "peaked", "broad", "far apart", "banned", "tied")


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_the_hosts(kind: str) -> None:
    same = []
    thinner = 6 if is_sanitized() else 1  # there it is memory that is tested
    for vocab, step in ((1, 97), (2, 61), (33, 23), (77, 7), (1000, 7), (5000, 11)):
        chosen = SETTINGS[vocab % step :: step * thinner]
        rows = [logits_of(kind, vocab, seed) for seed in range(len(chosen))]
        same.append(assert_batch(rows, chosen, vocab))
    assert min(same) > (0.97 if thinner == 1 else 0.9)
    assert sum(same) / len(same) > 0.99


@pytest.mark.parametrize("vocab", [50277, 65536, 131072])
def test_draws_from_a_large_vocabulary_are_the_hosts(vocab: int) -> None:
    chosen = SETTINGS[vocab % 23 :: 23]
    kinds = itertools.cycle(KINDS)
    rows = [logits_of(next(kinds), vocab, seed) for seed in range(len(chosen))]
    assert assert_batch(rows, chosen, vocab) > 0.9


def test_common_settings_draw_the_hosts_tokens_from_likely_logits() -> None:
    # As of a language model: a few tokens stand out of a broad rest.
    rng = np.random.default_rng(5)
    rows = [
        (rng.normal(-4, 2.5, 65536) + rng.exponential(1.2, 65536)).astype(np.float32)
        for _ in range(12)
    ]
    chosen = [
        Sampling(*values)
        for values in (
            (1.0, 0.3),
            (1.0, 0.5),
            (1.2, 0.5),
            (1.0, 0.85),
            (0.8, 0.95, 50),
            (1.0, 1.0, 40),
        )
    ]
    assert assert_batch(rows, chosen * 2, 8) > 0.9


@given(
    values=st.lists(st.integers(-6, 6), min_size=1, max_size=40),
    top_k=st.integers(0, 45),
    seed=st.integers(0, 2**64 - 1),
    temperature=st.sampled_from((0.0, 1e-7, 0.5, 1.0, 3.0)),
    top_p=st.sampled_from((0.0, 0.5, 1.0)),
    order=st.sampled_from(("rwkv", "openai")),
)
@LAW
def test_ties_are_settled_as_on_the_host(
    values: list[int], top_k: int, seed: int, temperature: float, top_p: float, order: str
) -> None:
    logits = np.array(values, dtype=np.float32)
    s = Sampling(temperature, top_p, top_k, order=order)
    (token,) = Batch(logits, [s], seed).draw()
    if temperature < 1e-6:
        assert token == draw_plainly(logits, s, 0.5)
    else:
        assert_drawn(logits, s, uniform(seed, 3, 0), token)


@pytest.mark.parametrize("top_k", [0, 1, 1000, 1025, 4000])
@pytest.mark.parametrize("top_p", [0.3, 1.0])
def test_equal_logits_share_evenly(top_p: float, top_k: int) -> None:
    s = Sampling(1.3, top_p, top_k)
    drawn = Batch(np.full((6, 5000), -7), [s] * 6).draw()
    assert drawn == [int((top_k or 5000) * uniform(0, 3, place)) for place in range(6)]


def test_weights_that_nearly_agree_are_told_apart_by_top_k() -> None:
    logits = np.full((8, 3000), -3e-7, dtype=np.float32)
    logits[:, ::2] = 0
    s = Sampling(1.0, 1.0, 1500)
    drawn = Batch(logits, [s] * 8).draw()
    assert drawn == [draw_plainly(logits[0], s, uniform(0, 3, place)) for place in range(8)]
    assert all(token % 2 == 0 for token in drawn)


def test_top_p_that_is_just_reached_keeps_no_more() -> None:
    rows = np.zeros((40, 2), np.float32)
    rows[:, 1] = -np.linspace(0.1, 4, 40)
    totals = 1 + np.exp(rows[:, 1])  # float32, as the sums are
    samplings = [Sampling(1.0, 1 / float(total)) for total in totals]
    assert Batch(rows, samplings).draw() == [0] * 40


def test_a_cold_draw_takes_the_first_of_the_likeliest() -> None:
    rows = np.full((4, 3000), -1, np.float32)
    rows[0, [2999, 1500]] = -0.0, 0.0
    rows[1, [77, 1030]] = 0.0, -0.0
    rows[2, 5:] = -np.inf
    rows[3] = np.linspace(0, 1, 3000)
    samplings = [Sampling(t, order=o) for t, o in ((0.0, "rwkv"), (1e-7, "openai")) * 2]
    assert Batch(rows, samplings).draw() == [1500, 77, 0, 2999]


# --- what cannot be drawn -----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_no_token_can_be_drawn_everything_stays(temperature: float) -> None:
    vocab, bad = 300, (np.nan, -np.nan, np.inf, -np.inf)
    rows = [logits_of("flat", vocab, seed) for seed in range(5)]
    for row, value, place in zip(rows, bad, (0, 299, 130, slice(None)), strict=False):
        row[place] = value
    counts = [np.ones(vocab, np.float32) for _ in rows]
    batch = Batch(np.stack(rows), [Sampling(temperature)] * 5, counts=counts)
    before = [row.copy() for row in counts]
    drawn = batch.draw()
    assert drawn[:4] == [-1] * 4
    assert batch.tokens.tolist() == [7] * 4 + drawn[4:]
    assert batch.position.tolist() == [0, 1, 2, 3, 5]
    assert all((a == b).all() for a, b in zip(counts[:4], before[:4], strict=True))
    for row in rows[:4]:
        with pytest.raises(RefusedError):
            draw_plainly(row, Sampling(temperature), 0.5)


def test_a_banned_token_is_never_drawn_whatever_its_logit() -> None:
    vocab = 333
    rows = np.stack([logits_of("flat", vocab, seed) for seed in range(4)])
    rows[:, 332] = 30
    rows[:, 0] = np.nan
    rows[:, 64] = np.inf
    bans = [[0, 64, 332], [0, 64, *range(100, 333)], [0, 32, 64], range(333)]
    samplings = [Sampling(1.0, top_p) for top_p in (1.0, 0.7, 0.9, 1.0)]
    batch = Batch(rows, samplings, banned=[bits(list(ban), vocab) for ban in bans])
    drawn = batch.draw()
    assert drawn[3] == -1
    for place, ban in enumerate(bans[:3]):
        logits = rows[place].copy()
        logits[list(ban)] = -np.inf
        assert drawn[place] == draw_plainly(logits, samplings[place], uniform(0, 3, place))
    shared = Batch(rows[:2], samplings[:2], banned=[bits(bans[0], vocab)] * 2)
    assert shared.draw()[0] == drawn[0]


# --- what nothing may depend on -----------------------------------------------------------------


def test_a_draw_depends_on_no_order_of_threads_and_on_no_sequence_beside_it() -> None:
    kinds = ("flat", "broad", "tied")
    rows = np.stack([logits_of(kind, 4000, seed) for seed, kind in enumerate(kinds)])
    samplings = [Sampling(0.7, 0.93), Sampling(1.5, 0.6, 700), Sampling(1.0, 1.0, 30)]
    first = Batch(rows, samplings).draw(0)
    for order in range(1, 5):
        assert Batch(rows, samplings).draw(order) == first
    for place in range(3):
        position = np.array([place], np.int64)
        alone = Batch(rows[place], [samplings[place]], position=position)
        assert alone.draw() == [first[place]]
