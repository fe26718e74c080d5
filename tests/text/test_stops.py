"""Laws of finding stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.errors import UsageError
from rwkv_cli.text.stops import StopMatcher

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=300)

LETTERS = st.sampled_from([b"a", b"b", b"c"])
WORDS = st.lists(LETTERS, min_size=1, max_size=4).map(b"".join)
CHUNKS = st.lists(st.lists(LETTERS, max_size=5).map(b"".join), max_size=8)


def search(text: bytes, stops: list[bytes]) -> int | None:
    """Where the first stop string starts, tried at every place."""
    for start in range(len(text)):
        if any(text[start:].startswith(stop) for stop in stops):
            return start
    return None


def run(matcher: StopMatcher, chunks: list[bytes]) -> tuple[bytes, bool]:
    """Feed until it stops, then flush: all that is shown, and whether it stopped before the end."""
    shown = b""
    for chunk in chunks:
        safe, stopped = matcher.feed(chunk)
        shown += safe
        if stopped:
            return shown, True
    return shown + matcher.flush(), False


@given(st.lists(WORDS, max_size=4), CHUNKS)
@LAW
def test_shown_is_the_text_before_the_earliest_stop(
    stops: list[bytes], chunks: list[bytes]
) -> None:
    text = b"".join(chunks)
    matcher = StopMatcher(stops)
    shown, _ = run(matcher, chunks)
    start = search(text, stops)
    assert shown == (text if start is None else text[:start])
    assert (matcher.matched is None) == (start is None)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(LETTERS, max_size=20))
@LAW
def test_held_is_the_longest_end_that_begins_a_stop(
    stops: list[bytes], letters: list[bytes]
) -> None:
    matcher = StopMatcher(stops)
    text = b""
    for letter in letters:
        text += letter
        _, stopped = matcher.feed(letter)
        if stopped:
            return
        ends = (text[-n:] for n in range(len(text), 0, -1))
        longest = next((end for end in ends if any(_begins(end, s) for s in stops)), b"")
        assert matcher.held == longest


def _begins(end: bytes, stop: bytes) -> bool:
    return len(end) < len(stop) and stop.startswith(end)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(LETTERS, max_size=20).map(b"".join))
@LAW
def test_at_equal_start_the_longest_is_matched(stops: list[bytes], text: bytes) -> None:
    matcher = StopMatcher(stops)
    run(matcher, [text])
    start = search(text, stops)
    if start is not None:
        assert matcher.matched == max((s for s in stops if text.startswith(s, start)), key=len)


def test_nothing_shown_is_lost_or_repeated() -> None:
    matcher = StopMatcher([b"\n\nUser:", b"\nUser:"])
    assert matcher.feed(b"Yes.\n") == (b"Yes.", False)
    assert matcher.feed(b"\nNo") == (b"\n\nNo", False)
    assert matcher.feed(b".\n\nUs") == (b".", False)
    assert matcher.held == b"\n\nUs"
    assert matcher.feed(b"er: hi") == (b"", True)
    assert matcher.matched == b"\n\nUser:"
    assert matcher.held == b"\n\nUser: hi"


def test_a_stop_inside_a_possible_earlier_one_waits_for_it() -> None:
    matcher = StopMatcher([b"abcd", b"bc"])
    assert matcher.feed(b"abc") == (b"", False)
    assert matcher.feed(b"x") == (b"a", True)
    waiting = StopMatcher([b"abcd", b"bc"])
    waiting.feed(b"abc")
    assert waiting.flush() == b"a"
    assert waiting.matched == b"bc"


def test_after_a_stop_nothing_more_is_shown() -> None:
    matcher = StopMatcher([b"b"])
    assert matcher.feed(b"abc") == (b"a", True)
    assert matcher.feed(b"d") == (b"", True)
    assert matcher.flush() == b""


def test_without_stops_all_is_shown_at_once() -> None:
    matcher = StopMatcher([])
    assert matcher.feed(b"abc") == (b"abc", False)
    assert matcher.held == b""


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(UsageError):
        StopMatcher([b"a", b""])
