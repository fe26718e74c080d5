"""Sampling by the C++ library against numpy: the same tokens, unless rounding decides."""

from __future__ import annotations

import ctypes
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.sampler import probabilities

from rwkv_cli.errors import RefusedError
from rwkv_cli.native import sample as native
from rwkv_cli.native.library import NativeError, unavailable_reason
from rwkv_cli.sampling import Sampling, draw, draw_plainly

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no native library: {unavailable_reason()}"
)

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=300)
LARGEST = 1 - 2.0**-53

SETTINGS = [
    Sampling(temperature, top_p, top_k, min_p, order=order)
    for temperature, top_p, top_k, min_p, order in itertools.product(
        (1.0, 0.4, 2.5), (1.0, 0.85, 0.3, 0.0), (0, 1, 40), (0.0, 0.05), ("rwkv", "openai")
    )
]


def logits_of(kind: str, vocab: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, vocab)
    if kind == "peaked":
        logits *= 4
        logits[rng.integers(vocab)] = 25
    if kind == "far apart":
        logits *= 60
    if kind == "banned":
        logits[rng.random(vocab) < 0.5] = -np.inf
    if kind == "tied":
        logits = np.round(logits)
    return logits.astype(np.float32)


KINDS = ("flat", "peaked", "far apart", "banned", "tied")


def assert_agree(logits: np.ndarray, s: Sampling, u: float) -> None:
    """Both draw the same token, or `u` lies at the border between the two."""
    ours, theirs = draw(logits, s, u), draw_plainly(logits, s, u)
    if ours != theirs:
        edges = np.concatenate(([0], probabilities(logits, s).cumsum()))
        first, second = sorted((ours, theirs))
        assert edges[second] - 3e-6 <= u <= edges[first + 1] + 3e-6, (s, u, ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vocab", [2, 3, 77, 256, 1027])
def test_draws_equal_numpys(vocab: int, kind: str) -> None:
    for seed, s in enumerate(SETTINGS):
        logits = logits_of(kind, vocab, seed)
        logits[seed % vocab] = 3  # banned everywhere would be an error
        for u in (0.0, LARGEST, *np.random.default_rng(seed).random(10)):
            assert_agree(logits, s, u)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_from_a_large_vocabulary_equal_numpys(kind: str) -> None:
    for seed, s in enumerate(SETTINGS[::7]):
        logits = logits_of(kind, 65536, seed)
        for u in np.random.default_rng(seed).random(10):
            assert_agree(logits, s, u)


def test_nearly_all_draws_are_exactly_numpys() -> None:
    rng, same, drawn = np.random.default_rng(1), 0, 0
    for seed, s in enumerate(SETTINGS[::5]):
        logits = logits_of("peaked", 65536, seed)
        for u in rng.random(20):
            same += draw(logits, s, u) == draw_plainly(logits, s, u)
            drawn += 1
    assert same >= 0.999 * drawn


@given(
    values=st.lists(st.integers(-6, 6), min_size=1, max_size=40),
    top_k=st.integers(0, 45),
    u=st.floats(0, LARGEST),
    temperature=st.sampled_from((0.0, 0.5, 1.0, 3.0)),
    order=st.sampled_from(("rwkv", "openai")),
)
@LAW
def test_ties_are_settled_as_in_numpy(
    values: list[int], top_k: int, u: float, temperature: float, order: str
) -> None:
    logits = np.array(values, dtype=np.float32)
    s = Sampling(temperature, 1.0, top_k, order=order)
    if temperature:
        assert_agree(logits, s, u)
    else:
        assert draw(logits, s, u) == draw_plainly(logits, s, u)


@pytest.mark.parametrize("top_p", [0.3, 0.85, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 1000])
def test_equal_logits_share_evenly(top_p: float, top_k: int) -> None:
    logits = np.full(5000, -7, dtype=np.float32)
    s = Sampling(1.0, top_p, top_k)
    left = top_k or 5000
    for place in (0, left // 2, left - 1):
        assert draw(logits, s, (place + 0.5) / left) == place


def test_weights_that_nearly_agree_are_told_apart_by_top_k() -> None:
    logits = np.full(3000, -3e-7, dtype=np.float32)
    logits[::2] = 0
    s = Sampling(1.0, 1.0, 1500)
    drawn = {draw(logits, s, u) for u in np.random.default_rng(2).random(500)}
    assert all(token % 2 == 0 for token in drawn)
    assert len(drawn) > 300


def test_exponentials_are_exact_to_a_few_units_in_the_last_place() -> None:
    scores = np.linspace(0, -87, 4001, dtype=np.float32)
    for score in scores[1:]:
        # Two tokens: the border between them is at 1 / (1 + weight).
        weight = np.exp(np.float64(score))
        for logits, border in (
            (np.array([0, score]), 1 / (1 + weight)),
            (np.array([score, 0]), weight / (1 + weight)),
        ):
            row = logits.astype(np.float32)
            low, high = border * (1 - 4e-7), min(border * (1 + 4e-7), LARGEST)
            if border < 1 - 1e-6:
                assert draw(row, Sampling(1.0, 1.0), low) == 0
                assert draw(row, Sampling(1.0, 1.0), high) == 1


@pytest.mark.parametrize("vocab", [1, 2, 3, 4, 5, 15, 16, 17, 31, 257])
def test_no_number_is_found_at_every_place(vocab: int) -> None:
    for place, value, temperature in itertools.product(
        range(vocab), (np.nan, -np.nan, np.inf), (0.0, 1.0)
    ):
        logits = logits_of("flat", vocab, 3)
        logits[place] = value
        with pytest.raises(RefusedError, match="not finite"):
            draw(logits, Sampling(temperature), 0.5)


@pytest.mark.parametrize("vocab", [1, 3, 8, 65536])
def test_nothing_is_drawn_when_everything_is_banned(vocab: int) -> None:
    with pytest.raises(RefusedError, match="banned"):
        draw(np.full(vocab, -np.inf, dtype=np.float32), Sampling(), 0.5)


def test_the_likeliest_of_equals_is_the_first() -> None:
    logits = np.array([-np.inf, -0.0, 0.0, 0.0, -1], dtype=np.float32)
    assert draw(logits, Sampling(0.0), 0.9) == draw_plainly(logits, Sampling(0.0), 0.9) == 1


def test_logits_at_any_place_in_memory_are_drawn_from() -> None:
    row = logits_of("flat", 501, 4)
    s = Sampling(1.0, 0.9)
    room = np.zeros(510, dtype=np.float32)
    for shift in range(5):
        moved = room[shift : shift + 501]
        moved[:] = row
        assert draw(moved, s, 0.3) == draw(row, s, 0.3)
    double, strided = row.astype(np.float64), np.repeat(row, 2)[::2]
    assert not native.can_draw(double)
    assert not native.can_draw(strided)
    assert native.can_draw(row)
    assert draw(strided, s, 0.3) == draw_plainly(row, s, 0.3)


def test_threads_draw_at_once_without_disturbing_each_other() -> None:
    rows = [logits_of("flat", size, size) for size in (100, 65536, 3000, 20000)] * 8
    s = Sampling(1.3, 0.9, 200)
    alone = [draw(row, s, 0.7) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: draw(row, s, 0.7), rows)) == alone


def test_bad_arguments_are_refused_at_the_border() -> None:
    row = logits_of("flat", 9, 5)
    good = {"temperature": 1.0, "top_p": 0.5, "top_k": 0, "min_p": 0.0, "temperature_first": False}
    bad = (
        ("temperature", (-1.0, np.nan, np.inf)),
        ("top_p", (-0.1, 1.1, np.nan)),
        ("top_k", (-1,)),
        ("min_p", (-0.1, 1.1, np.nan)),
    )
    for name, values in bad:
        for value in values:
            with pytest.raises(NativeError):
                native.draw(row, 0.5, **{**good, name: value})
    for u in (-0.1, 1.0, np.nan):
        with pytest.raises(NativeError):
            native.draw(row, u, **good)
    with pytest.raises(NativeError):
        native.draw(row[:0], 0.5, **good)
    token = ctypes.c_int32()
    settings_ = native.Settings(0.5, 0, 1.0, 0.0, 0)
    function = native._function()
    assert function(None, 9, ctypes.byref(settings_), 0.5, ctypes.byref(token)) == -1
    assert function(row.ctypes.data, 9, None, 0.5, ctypes.byref(token)) == -1
    assert function(row.ctypes.data, 1 << 40, ctypes.byref(settings_), 0.5, None) == -1
