"""Sampling against a slow transcription of the reference, and the promises of its randomness."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from oracle.sampler import Occurrences, probabilities

from rwkv_cli.errors import RefusedError, UsageError
from rwkv_cli.native import sample as native
from rwkv_cli.native.library import unavailable_reason
from rwkv_cli.philox import philox
from rwkv_cli.sampling import PRESETS, Penalties, Sampling, draw, uniform

LARGEST = 1 - 2.0**-53  # the largest number that `uniform` gives
GOLDEN = [0.3035680343067586, 0.9002684531124185, 0.6492520523791616]
US = (0.0, 1e-12, *np.linspace(0.003, 0.997, 60), 1 - 1e-9, LARGEST)

SETTINGS = [
    Sampling(temperature, top_p, top_k, min_p, order=order)
    for temperature, top_p, top_k, min_p, order in itertools.product(
        (1.0, 0.4, 2.5), (1.0, 0.85, 0.3, 0.0), (0, 1, 7), (0.0, 0.05), ("rwkv", "openai")
    )
]


@pytest.fixture(autouse=True, params=["numpy", "native"])
def _each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw with numpy, then with the C++ library."""
    if request.param == "numpy":
        monkeypatch.setattr(native, "is_available", lambda: False)
    elif unavailable_reason() is not None:
        pytest.skip(f"no native library: {unavailable_reason()}")


def _logits(vocab: int, seed: int, spread: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, vocab).astype(np.float32)


def _check(logits: np.ndarray, s: Sampling) -> None:
    """Each draw must hit a kept token whose stretch of the distribution holds the number."""
    p = probabilities(logits, s)
    edges = np.concatenate(([0], p.cumsum()))
    for u in US:
        token = draw(logits.copy(), s, u)
        assert p[token] > 0, (s, u)
        assert edges[token] - 2e-6 <= u <= edges[token + 1] + 2e-6, (s, u)


@pytest.mark.parametrize("vocab", [2, 77, 256, 257, 1000])
def test_draws_follow_the_distribution_of_the_reference(vocab: int) -> None:
    for seed, settings in enumerate(SETTINGS):
        _check(_logits(vocab, seed), settings)


@pytest.mark.parametrize("spread", [0.1, 3.0, 20.0])
def test_draws_from_a_large_vocabulary_follow_the_reference(spread: float) -> None:
    for seed, settings in enumerate(SETTINGS[::29]):
        _check(_logits(65536, seed, spread), settings)


def test_every_kept_token_can_be_drawn() -> None:
    for seed, settings in enumerate(SETTINGS):
        logits = _logits(40, seed, 1.0)
        p = probabilities(logits, settings)
        middles = p.cumsum() - p / 2
        drawn = {draw(logits.copy(), settings, middles[token]) for token in np.flatnonzero(p)}
        assert drawn == set(np.flatnonzero(p).tolist())


def test_draw_leaves_the_logits_as_they_are() -> None:
    for settings in SETTINGS:
        logits = _logits(300, 1)
        draw(logits, settings, 0.5)
        assert np.array_equal(logits, _logits(300, 1))


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(temperature=0),
        Sampling(temperature=0, top_p=0.5, order="openai"),
        Sampling(temperature=1e-50, top_p=1.0),
        Sampling(temperature=1e-43, top_p=1.0),
        Sampling(temperature=1e-5, top_p=1.0),
        Sampling(temperature=1e-5, top_p=1.0, order="openai"),
        Sampling(temperature=10, top_p=1.0, top_k=1),
        Sampling(temperature=10, top_p=0.0),
        Sampling(temperature=10, top_p=1.0, min_p=1.0),
    ],
)
def test_settings_without_chance_take_the_likeliest(settings: Sampling) -> None:
    for seed in range(5):
        logits = _logits(500, seed)
        assert {draw(logits.copy(), settings, u) for u in US} == {int(logits.argmax())}


def test_of_equally_likely_tokens_top_k_keeps_the_smaller_ids() -> None:
    logits = np.array([0, 5, 1, 5, 5, 5, 2], dtype=np.float32)
    for k in (1, 2, 3, 4):
        drawn = {draw(logits.copy(), Sampling(top_p=1.0, top_k=k), u) for u in US}
        assert drawn == {1, 3, 4, 5}.intersection([1, 3, 4, 5][:k])


def test_banned_tokens_are_never_drawn() -> None:
    for seed, settings in enumerate(SETTINGS):
        logits = _logits(300, seed)
        banned = np.argsort(logits)[-200::2]
        logits[banned] = -np.inf
        assert not {draw(logits.copy(), settings, u) for u in US} & set(banned.tolist())


def test_last_token_left_is_drawn_wherever_it_is() -> None:
    for place in (0, 255, 256, 299):
        logits = np.full(300, -np.inf, dtype=np.float32)
        logits[place] = -4
        assert {draw(logits.copy(), Sampling(1.5, top_p=1.0), u) for u in US} == {place}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_refused(value: float, temperature: float) -> None:
    logits = _logits(300, 1)
    logits[7] = value
    with pytest.raises(RefusedError, match="not finite"):
        draw(logits, Sampling(temperature), 0.5)


def test_nothing_can_be_drawn_when_everything_is_banned() -> None:
    with pytest.raises(RefusedError, match="banned"):
        draw(np.full(9, -np.inf, dtype=np.float32), Sampling(), 0.5)


def test_penalties_equal_the_reference_over_50_tokens() -> None:
    texts = ["a", " ", "1", "23", "the", "\t", "x9", "é", "", "\n"]
    rng = np.random.default_rng(3)
    settings = Sampling(presence=0.3, frequency=0.7, penalty_decay=0.97)
    ours, theirs = Penalties(), Occurrences(settings)
    for _ in range(50):
        logits = _logits(len(texts), 5)
        expected = theirs.apply(logits)
        ours.apply(logits, settings)
        assert np.abs(logits - expected).max() < 1e-5
        token = int(rng.integers(len(texts)))
        ours.record(token, texts[token].encode(), settings.penalty_decay)
        theirs.record(token, texts[token])
    assert ours.ids.tolist() == list(theirs.counts)
    assert np.allclose(ours.counts, list(theirs.counts.values()), atol=1e-5)


def test_penalties_of_many_tokens_keep_them_all() -> None:
    penalties = Penalties()
    for token in range(1000):
        penalties.record(token * 7, b"word", 1.0)
    assert penalties.ids.tolist() == [token * 7 for token in range(1000)]
    assert penalties.counts.tolist() == [1.0] * 1000


def test_penalties_saved_and_restored_go_on_bit_for_bit() -> None:
    whole, first = Penalties(), Penalties()
    tokens = np.random.default_rng(4).integers(0, 100, 200).tolist()
    for token in tokens[:90]:
        whole.record(token, b"word", 0.996)
        first.record(token, b"word", 0.996)
    rest = Penalties(first.ids, first.counts)
    for token in tokens[90:]:
        whole.record(token, b"word", 0.996)
        rest.record(token, b"word", 0.996)
    assert np.array_equal(whole.ids, rest.ids)
    assert np.array_equal(whole.counts, rest.counts)


def test_copy_of_penalties_goes_its_own_way() -> None:
    penalties = Penalties()
    penalties.record(3, b"a", 0.5)
    twin = penalties.copy()
    twin.record(4, b"b", 0.5)
    penalties.record(5, b"c", 0.25)
    assert (penalties.ids.tolist(), penalties.counts.tolist()) == ([3, 5], [0.25, 1.0])
    assert (twin.ids.tolist(), twin.counts.tolist()) == ([3, 4], [0.5, 1.0])


def test_random_numbers_depend_on_their_place_alone() -> None:
    places = [(s, t, p) for s in (0, 1, 2**64 - 1) for t in (0, 1, 2) for p in (0, 1, 10**9)]
    numbers = [uniform(*place) for place in places]
    assert len(set(numbers)) == len(places)
    assert [uniform(*place) for place in reversed(places)] == numbers[::-1]


def test_random_numbers_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert [uniform(1, 0, 0), uniform(1, 0, 1), uniform(42, 3, 1000)] == GOLDEN


def test_random_numbers_are_numpys() -> None:
    ours, edges = random.Random(5), (0, 1, 2**64 - 2, 2**64 - 1)
    keys = [*itertools.product(edges, edges), (ours.getrandbits(64), ours.getrandbits(64))]
    counters = [*edges, 2**64, 2**128 - 1, *(ours.getrandbits(bits) for bits in range(1, 256, 9))]
    for key, counter in itertools.product(keys, counters):
        theirs = np.random.Philox(key=np.array(key, np.uint64), counter=counter).random_raw()
        assert philox(key, counter) == theirs, (key, counter)


def test_random_numbers_are_uniform() -> None:
    numbers = np.array([uniform(9, 0, position) for position in range(4000)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 44  # chi-squared of 19 degrees at 0.001
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.001, 1e9])
@pytest.mark.parametrize(
    "name",
    ["temperature", "top_p", "min_p", "presence", "frequency", "penalty_decay"],
)
def test_setting_out_of_range_is_refused_by_its_name(name: str, value: float) -> None:
    if value == -0.001 and name in ("presence", "frequency"):
        value = -10.5
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        Sampling(**{name: value})


@pytest.mark.parametrize(
    "value", [-1, 2.5, 1 << 21, pytest.param(10**400, id="400 digits"), float("nan")]
)
def test_top_k_is_a_count(value: float) -> None:
    with pytest.raises(UsageError, match="top-k"):
        Sampling(top_k=value)


def test_order_of_the_filters_has_two_names() -> None:
    with pytest.raises(UsageError, match="sampler-order"):
        Sampling(order="llama")


def test_settings_survive_json() -> None:
    for settings in PRESETS.values():
        saved = settings.with_changes(banned=(1, 2), top_k=None).to_json()
        assert Sampling(**{**saved, "banned": tuple(saved["banned"])}).top_k == settings.top_k
        assert saved["banned"] == [1, 2]
