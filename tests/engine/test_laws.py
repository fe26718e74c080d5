"""What holds for every version, however tokens are fed and states are kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from oracle.models import distance, random_tokens
from oracle.weights import VERSIONS

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import UsageError

TOLERANCE = 1e-5


def _same(state: State, other: State) -> bool:
    """Whether two states are alike within the tolerance."""
    return state.tokens == other.tokens and all(
        np.linalg.norm(a - other.arrays[name]) <= TOLERANCE * np.linalg.norm(a)
        for name, a in state.arrays.items()
    )


def _content(state: State) -> tuple[object, ...]:
    """All of a state, to compare bit for bit."""
    logits = None if state.logits is None else state.logits.tobytes()
    arrays = {name: array.tobytes() for name, array in state.arrays.items()}
    extra = state.attachments
    penalties = extra.penalty_ids.tolist(), extra.penalty_counts.tolist()
    return list(state.tokens), arrays, logits, penalties, extra.transcript, extra.tail


def _splits(total: int, rng: random.Random) -> Iterator[int]:
    while total:
        size = min(total, rng.choice((1, 2, 15, 16, 17, rng.randint(1, 64))))
        total -= size
        yield size


def test_prefill_in_any_split_equals_stepwise(each: Model) -> None:
    tokens, rng = random_tokens(each, 120), random.Random(1)
    stepwise, rows = each.zero_state(), []
    for token in tokens:
        logits, stepwise = each.decode(token, stepwise)
        rows.append(logits)
    for _ in range(6):
        state = each.zero_state()
        for size in _splits(len(tokens), rng):
            fed = state.position
            logits, state = each.prefill(tokens[fed : fed + size], state)
            assert distance(logits, rows[state.position - 1]) < TOLERANCE
        assert _same(state, stepwise)


def test_prefill_longer_than_a_chunk_equals_its_parts(each: Model) -> None:
    tokens = random_tokens(each, 2 * each.engine.chunk + 3)
    logits, state = each.prefill(tokens)
    cut = each.engine.chunk + 44
    _, parts = each.prefill(tokens[:cut])
    expected, parts = each.prefill(tokens[cut:], parts)
    assert distance(logits, expected) < TOLERANCE
    assert _same(state, parts)


def test_streamed_tokens_are_bit_for_bit_the_same_in_any_pieces(model: Model) -> None:
    tokens, rng = random_tokens(model, 8 * model.engine.chunk + 77), random.Random(2)
    contents = []
    for sizes in ([len(tokens)], [1] * len(tokens), list(_splits(len(tokens), rng))):
        state, start, seen, pieces = model.zero_state(), 0, [], []
        for size in sizes:
            pieces.append(tokens[start : start + size])
            start += size
        assert model.advance_stream(pieces, state, seen.append) == len(tokens)
        assert seen[-1] == len(tokens)
        contents.append(_content(state))
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_batch_row_equals_single(each: Model, count: int) -> None:
    states = [each.prefill(random_tokens(each, 3 * row + 1, row))[1] for row in range(count)]
    tokens = random_tokens(each, count)
    logits, after = each.decode(tokens, states)
    assert logits.shape == (count, each.dims.vocab)
    for row, (token, state) in enumerate(zip(tokens, states, strict=True)):
        alone, single = each.decode(token, state)
        assert distance(logits[row], alone) < TOLERANCE
        assert _same(after[row], single)
        assert np.array_equal(after[row].logits, logits[row])


def test_reading_never_changes_the_given_state(each: Model) -> None:
    _, state = each.prefill(random_tokens(each, 20))
    twin = state.clone()
    before = _content(state)
    each.decode(7, state)
    each.decode([7, 8], [state, twin])
    each.prefill(random_tokens(each, 40), state)
    assert _content(state) == before
    assert _content(twin) == before


def test_states_do_not_alias(each: Model) -> None:
    _, root = each.prefill(random_tokens(each, 10))
    left, right = root.clone(), root.clone()
    for step in range(12):
        each.advance([20 + step], left)
        each.advance([60 + step, 90], right)
    for fork, tokens in (
        (left, [20 + s for s in range(12)]),
        (right, [t for s in range(12) for t in (60 + s, 90)]),
    ):
        assert fork.tokens == [*root.tokens, *tokens]
        alone = root.clone()
        for start in range(0, len(tokens), len(tokens) // 12):
            each.advance(tokens[start : start + len(tokens) // 12], alone)
        assert _content(fork) == _content(alone)


def test_same_state_twice_in_a_batch_goes_two_ways(model: Model) -> None:
    _, state = model.prefill([5, 6])
    _, (a, b) = model.decode([1, 2], [state, state])
    assert a.tokens == [5, 6, 1]
    assert b.tokens == [5, 6, 2]


def test_changing_given_logits_changes_no_state(model: Model) -> None:
    logits, state = model.prefill([5, 6])
    _, states = rows = model.decode([1, 2], [state, state])
    kept = [s.logits.copy() for s in (state, *states)]
    logits[:] = rows[0][:] = -np.inf
    assert all(np.array_equal(a, s.logits) for a, s in zip(kept, (state, *states), strict=True))


def test_same_tokens_give_the_same_bits(each: Model) -> None:
    tokens = random_tokens(each, 50)
    assert _content(each.prefill(tokens)[1]) == _content(each.prefill(tokens)[1])


def test_size_of_a_state_is_the_same_at_every_position(each: Model) -> None:
    _, state = each.prefill(random_tokens(each, 500))
    assert state.nbytes == each.zero_state().nbytes
    assert {n: a.shape for n, a in state.arrays.items()} == {
        n: a.shape for n, a in each.zero_state().arrays.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_keeps_a_gradient(tiny: Callable[[str, str], Model], version: str) -> None:
    stack = tiny(version, "torch").engine.stack
    tensors = [stack.emb, *vars(stack.ends).values()]
    tensors += [t for layer in stack.layers for t in vars(layer).values()]
    assert len(tensors) > 20
    assert not any(t.requires_grad for t in tensors)


@pytest.mark.parametrize("tokens", [[], [-1], [256], [3, 10**9]])
def test_tokens_outside_the_vocabulary_are_refused_and_change_nothing(
    model: Model, tokens: list[int]
) -> None:
    _, state = model.prefill([5, 6])
    before = _content(state)
    with pytest.raises(UsageError):
        model.advance(tokens, state)
    with pytest.raises(UsageError):
        model.decode(tokens, [state] * len(tokens))
    assert _content(state) == before


def test_token_of_numpy_is_a_token(model: Model) -> None:
    logits, state = model.prefill([5, 6])
    assert model.decode(logits.argmax(), state)[1].tokens == [5, 6, int(logits.argmax())]


def test_numbers_of_tokens_and_states_must_agree(model: Model) -> None:
    _, state = model.prefill([5])
    for tokens, states in (([1, 2], [state]), ([1, 2], state), (1, [state])):
        with pytest.raises(UsageError):
            model.decode(tokens, states)
