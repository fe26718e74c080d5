"""However a generation ends, the text of its state is the text that it gave out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.scripted import CUTTING, END, TABLE, TableTokenizer, scripted, text_of, ways

from rwkv_cli.engine.model import Model
from rwkv_cli.generation import Event, Generation
from rwkv_cli.sampling import Penalties, Sampling
from rwkv_cli.text.detokenize import StreamDecoder
from rwkv_cli.traces import Randomness, saved_sampler

PROMPT = (22, 6, 24, 25)  # ends with the first two bytes of a character
GREEDY = Sampling(temperature=0, presence=0.1, frequency=0.1)
STOPS = [b"\n\nUser:", b"\nUser:", b"\n\n", b"abcd", b"bc", b"c\n", b"\n", b"1", b"\xac", b"r:"]

# Tokens at random, and stop strings and their beginnings cut in every way.
_CUTS = sorted(
    {way for stop in STOPS for end in range(1, len(stop) + 1) for way in ways(stop[:end])}
)
tokens_of_scripts = st.lists(
    st.one_of(st.sampled_from(CUTTING).map(lambda token: (token,)), st.sampled_from(_CUTS)),
    max_size=6,
).map(lambda pieces: [token for piece in pieces for token in piece])
stops_of_any_kind = st.lists(st.sampled_from(STOPS), max_size=4, unique=True)
law = settings(max_examples=600, deadline=None, derandomize=True, database=None)


def _generation(
    script: Sequence[int], stops: Sequence[bytes] = (), *, limit: int = 99, **changes: object
) -> Generation:
    model = scripted(script, PROMPT)
    _, state = model.prefill(list(PROMPT))
    chosen = GREEDY.with_changes(**changes)
    return Generation(model, state, chosen, Randomness(1), max_tokens=limit, stops=stops)


def _cut(text: bytes, stops: Sequence[bytes]) -> tuple[bytes, bool]:
    """The text before the stop string that starts first."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


def _check_state(generation: Generation, shown: bytes) -> None:
    """The state must be what reading its own tokens makes, and those must be the shown text."""
    state = generation.state
    assert text_of(state.tokens[len(PROMPT) :]) == shown
    model = generation._model
    _, again = model.prefill(list(state.tokens))
    assert np.array_equal(again.arrays["digest"], state.arrays["digest"])
    assert np.array_equal(again.logits, state.logits)
    decoder = StreamDecoder()
    decoder.feed(shown)
    assert state.attachments.tail == decoder.pending


def _check_penalties(generation: Generation, script: Sequence[int], shown: bytes) -> None:
    """Counted must be the tokens of what was shown: those that were shown whole, then those of
    the part of one that a stop string cut.
    """
    penalties, whole = Penalties(), 0
    for token in script:
        if whole + len(TABLE[token]) > len(shown):
            rest = TableTokenizer().encode(shown[whole:])
            break
        whole += len(TABLE[token])
        penalties.record(token, TABLE[token], GREEDY.penalty_decay)
    else:
        rest = []
    for token in rest:
        penalties.record(token, TABLE[token], GREEDY.penalty_decay)
    assert generation.state.attachments.penalty_ids.tolist() == penalties.ids.tolist()
    assert np.array_equal(generation.state.attachments.penalty_counts, penalties.counts)


@law
@given(tokens_of_scripts, stops_of_any_kind, st.integers(0, 16))
def test_state_text_equals_shown_text_after_every_ending(
    script: list[int], stops: list[bytes], limit: int
) -> None:
    generation = _generation(script, stops, limit=limit, presence=0.0, frequency=0.0)
    shown = b"".join(event.data for event in generation)
    said = script[:limit]
    expected, stopped = _cut(text_of(said), stops)
    assert shown == expected
    reason = "stop" if stopped else "length" if limit <= len(script) else "end"
    assert generation.finish == reason
    _check_state(generation, shown)
    _check_penalties(generation, said, shown)


@law
@given(tokens_of_scripts, stops_of_any_kind, st.integers(0, 14))
def test_interrupt_leaves_what_was_shown(script: list[int], stops: list[bytes], after: int) -> None:
    generation = _generation(script, stops, presence=0.0, frequency=0.0)
    if after == 0:
        generation.interrupt()
    shown = b""
    for event in generation:
        shown += event.data
        if generation.count == after:
            generation.interrupt()
    assert shown == _cut(text_of(script[: after or 0]), stops)[0] or generation.count < after
    _check_state(generation, shown)


@law
@given(tokens_of_scripts, stops_of_any_kind, st.integers(1, 14))
def test_reader_that_goes_away_leaves_what_it_saw(
    script: list[int], stops: list[bytes], after: int
) -> None:
    generation = _generation(script, stops, presence=0.0, frequency=0.0)
    shown, events = b"", iter(generation)
    for _, event in zip(range(after), events, strict=False):
        shown += event.data
    events.close()
    assert generation.finish is not None
    _check_state(generation, shown)


def _events(script: Sequence[int], stops: Sequence[bytes] = ()) -> list[Event]:
    return list(_generation(script, stops, presence=0.0, frequency=0.0))


def test_without_stops_nothing_is_held() -> None:
    script = [13, 7, 14, 15, 25, 26, 9]
    assert _events(script) == [Event(token, TABLE[token]) for token in script]


def test_only_what_may_begin_a_stop_is_held() -> None:
    script = [2, 14, 16, 6, 2]  # "a", "\n\n", "User", " ", "a"
    data = [event.data for event in _events(script, [b"\n\nUser:"])]
    assert data == [b"a", b"", b"", b"\n\nUser ", b"a"]


def test_stop_across_the_borders_of_tokens_is_found() -> None:
    script = [2, 14, 30, 31, 32, 8, 2]  # "a", "\n\n", "U", "e", "r", ":", "a"
    assert b"".join(e.data for e in _events(script, [b"\n\nUer:"])) == b"a"


def test_token_that_straddles_a_stop_is_split() -> None:
    generation = _generation([2, 23, 2], [b"\n\nUser:"])  # "c\n\nUser: a"
    assert [event.data for event in generation] == [b"a", b"c"]
    assert text_of(generation.state.tokens[len(PROMPT) :]) == b"ac"
    assert generation.finish == "stop"


def test_stop_found_only_at_the_end_still_stops() -> None:
    generation = _generation([2, 3, 4], [b"abcd", b"bc"])  # "abc" may yet become "abcd"
    assert b"".join(event.data for event in generation) == b"a"
    assert generation.finish == "stop"


def test_end_of_text_is_not_read() -> None:
    generation = _generation([2, 3, END, 4])
    assert [event.token for event in generation] == [2, 3]
    assert generation.finish == "end"
    assert list(generation.state.tokens) == [*PROMPT, 2, 3]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_length_is_counted_in_tokens(limit: int) -> None:
    generation = _generation([13, 22, 24, 13, 2], limit=limit)
    assert len(list(generation)) == generation.count == limit
    assert generation.finish == "length"


def test_iterating_again_gives_nothing() -> None:
    generation = _generation([2, 3])
    assert len(list(generation)) == 2
    assert list(generation) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0, 10.0])
def test_ids_without_bytes_are_never_drawn(temperature: float) -> None:
    generation = _generation([2] * 40, temperature=temperature, top_p=1.0)
    assert all(TABLE[event.token] for event in generation)


def test_banned_tokens_are_never_drawn() -> None:
    banned = (2, 3, END, -1, 10**6)
    generation = _generation([2, 3] * 20, temperature=3.0, banned=banned, limit=200)
    assert not {event.token for event in generation} & set(banned)
    assert generation.finish == "length"


def _real(model: Model, count: int, parts: Sequence[int], prompt: bytes = b"Once") -> list[object]:
    """Generate in parts, each from the state and the settings that the one before left."""
    _, state = model.prefill(list(prompt))
    sampling, randomness = Sampling(1.2, 0.9, banned=(0,)), Randomness(5, 1)
    shown = b""
    for part in parts:
        generation = Generation(model, state, sampling, randomness, max_tokens=part)
        shown += b"".join(event.data for event in generation)
        state = generation.state
        again = saved_sampler(state.attachments)
        assert again == (sampling, randomness)
        sampling, randomness = again
    counts = state.attachments.penalty_counts.tobytes()
    arrays = {name: array.tobytes() for name, array in state.arrays.items()}
    return [shown, list(state.tokens), counts, arrays, state.logits.tobytes()]


def test_resumed_generation_equals_uninterrupted(each: Model) -> None:
    whole = _real(each, 40, [40])
    assert len(whole[1]) == 44
    assert _real(each, 40, [1, 7, 0, 32]) == whole


def test_other_seed_or_stream_gives_another_text(model: Model) -> None:
    texts = set()
    for place in (Randomness(1), Randomness(2), Randomness(1, 1), Randomness(1, 2)):
        _, state = model.prefill(list(b"Once"))
        generation = Generation(model, state, Sampling(1.2, 0.9), place, max_tokens=30)
        texts.add(b"".join(event.data for event in generation))
    assert len(texts) == 4
