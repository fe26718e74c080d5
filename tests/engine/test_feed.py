"""Feeding sequences of different lengths in one pass, on every engine of a CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from oracle.models import needs_native, random_tokens
from oracle.weights import VERSIONS

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.native.library import NativeError

Tiny = Callable[[str, str], Model]
LENGTHS = [1, 13, 1, 2, 40, 1]
WANTED = [True, False, False, True, True, True]


@pytest.fixture(params=VERSIONS)
def native_each(request: pytest.FixtureRequest, tiny: Tiny) -> Model:
    """The tiny model of each version on the C++ library."""
    return tiny(request.param, "native")


@pytest.fixture
def native(tiny: Tiny) -> Model:
    return tiny("v7", "native")


def _fed(model: Model) -> tuple[list[list[int]], list[State]]:
    """Give what is fed, and states that have read something before."""
    tokens = random_tokens(model, sum(LENGTHS))
    ends = np.cumsum(LENGTHS)
    fed = [tokens[end - n : end] for end, n in zip(ends, LENGTHS, strict=True)]
    return fed, [model.prefill([row + 1, 7])[1] for row in range(len(LENGTHS))]


def _same(a: State, b: State) -> bool:
    return all(np.array_equal(b.arrays[name], array) for name, array in a.arrays.items())


@needs_native
def test_a_ragged_pass_is_a_step_after_the_other(native_each: Model) -> None:
    fed, states = _fed(native_each)
    alone = [state.clone() for state in states]
    native_each.engine.feed(fed, states, WANTED)
    for tokens, state, single, is_wanted in zip(fed, states, alone, WANTED, strict=True):
        for token in tokens:
            logits = native_each.engine.decode([token], [single])
        assert list(state.tokens) == list(single.tokens)
        assert _same(state, single)
        assert (state.logits is not None) == is_wanted
        assert state.logits is None or state.logits.tobytes() == logits.tobytes()


def test_states_keep_what_feeding_promises(each: Model) -> None:
    fed, states = _fed(each)
    alone = [state.clone() for state in states]
    each.engine.feed(fed, states, WANTED)
    for tokens, state, single, is_wanted in zip(fed, states, alone, WANTED, strict=True):
        expected = each.engine.prefill(tokens, single)
        assert list(state.tokens) == list(single.tokens)
        assert (state.logits is not None) == is_wanted
        assert state.logits is None or np.abs(state.logits - expected).max() < 1e-3


@needs_native
def test_logits_that_somebody_keeps_are_not_written_again(native: Model) -> None:
    states = [native.zero_state() for _ in range(3)]
    kept: list[np.ndarray] = []
    copies: list[np.ndarray] = []
    for token in random_tokens(native, 12):
        native.engine.feed([[token]] * 3, states, [True] * 3)
        kept += [state.logits[:] for state in states if state.logits is not None]
        copies += [row.copy() for row in kept[-3:]]
    assert all(map(np.array_equal, kept, copies))
    addresses = {row.ctypes.data for row in kept}
    assert len(addresses) == len(kept)
    assert all(address % 64 == 0 for address in addresses)


@needs_native
def test_rows_of_logits_are_used_again_when_nobody_keeps_them(native: Model) -> None:
    state, addresses = native.zero_state(), set()
    for token in random_tokens(native, 12):
        native.engine.feed([[token]], [state], [True])
        assert state.logits is not None
        addresses.add(state.logits.ctypes.data)
    assert len(addresses) <= 3


@needs_native
def test_a_clone_has_logits_of_its_own(native: Model) -> None:
    state = native.zero_state()
    native.engine.feed([[5]], [state], [True])
    twin = state.clone()
    assert state.logits is not None
    assert twin.logits is not None
    state.logits[:] = 0
    assert twin.logits.any()


@needs_native
def test_a_refused_feed_changes_nothing(native: Model) -> None:
    _, state = native.prefill([1, 2])
    before = state.clone()
    with pytest.raises(NativeError, match="outside the vocabulary"):
        native.engine.feed([[3], [native.dims.vocab]], [state, native.zero_state()], [True, True])
    assert list(state.tokens) == [1, 2]
    assert _same(state, before)
    assert state.logits is not None
    assert before.logits is not None
    assert np.array_equal(state.logits, before.logits)
