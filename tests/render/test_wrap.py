"""Laws of the word wrap: nothing but spaces is lost, and no line is too long."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.render.wrap import WordWrap, columns


def _wrapped(text: str, width: int, cuts: list[int] | None = None) -> str:
    wrap = WordWrap(lambda: width)
    places = [0, *sorted(c % (len(text) + 1) for c in cuts or []), len(text)]
    parts = [text[a:b] for a, b in pairwise(places)]
    return "".join(map(wrap.feed, parts)) + wrap.flush()


WORDS = st.lists(st.text("abc,é漢", min_size=1, max_size=8), max_size=40).map(" ".join)


@given(WORDS, st.integers(10, 30))
def test_lines_fit_and_only_spaces_become_line_ends(text: str, width: int) -> None:
    shown = _wrapped(text, width)
    assert all(columns(line) <= width for line in shown.split("\n") if "漢" not in line)
    assert shown.replace("\n", " ") == text


@given(st.text("ab \n漢\t", max_size=80), st.lists(st.integers(0, 200), max_size=6))
def test_result_does_not_depend_on_the_pieces(text: str, cuts: list[int]) -> None:
    assert _wrapped(text, 12, cuts) == _wrapped(text, 12)


def test_words_longer_than_the_line_are_left_to_the_terminal() -> None:
    assert _wrapped("a " + "b" * 50 + " c", 20).replace("\n", " ") == "a " + "b" * 50 + " c"


def test_indentation_and_blank_lines_stay() -> None:
    text = "def f():\n    return 1\n\n\n  x"
    assert _wrapped(text, 40) == text


def test_text_on_the_screen_counts() -> None:
    wrap = WordWrap(lambda: 20)
    wrap.after("Once upon a time")
    assert wrap.feed(", there was") + wrap.flush() == ", \nthere was".replace(", \n", ",\n")


def test_a_line_that_fits_exactly_is_not_broken() -> None:
    assert not re.search("\n", _wrapped("aaaa bbbbb", 10))
