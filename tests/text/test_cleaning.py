"""Laws of cleaning a message."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.text.cleaning import clean_stream, clean_text

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=250)

PARTS = st.sampled_from(
    ["\n", "\n\n", "\r\n", "\r", " ", "\t", "\u3000", "\x85", "\x1c", "a", "é", "雨", "User:"]
)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\n\n\nb", "a\nb"),
        ("a\r\n\r\nb", "a\nb"),
        ("a\r\r\n\nb", "a\nb"),
        ("  a b \n", "a b"),
        ("a\n \nb", "a\n \nb"),
        ("a\rb", "a\rb"),
        ("\n\n", ""),
        ("hi\n\nUser: I am the user", "hi\nUser: I am the user"),
    ],
)
def test_blank_lines_and_outer_white_space_go(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@given(st.lists(PARTS, max_size=12).map("".join))
@LAW
def test_without_lone_returns_it_is_the_models_own_cleaning(text: str) -> None:
    if not re.search(r"\r(?!\n)", text):
        assert clean_text(text) == re.sub(r"\n{2,}", "\n", text.replace("\r\n", "\n")).strip()


@given(st.lists(PARTS, max_size=20).map("".join))
@LAW
def test_no_message_holds_a_blank_line(text: str) -> None:
    assert "\n\n" not in clean_text(text)
    assert clean_text(clean_text(text)) == clean_text(text)


@given(
    st.lists(
        st.one_of(
            PARTS.map(str.encode), st.binary(max_size=3), st.sampled_from([b"\xe9", b"\x9b\xa8"])
        ),
        max_size=20,
    )
)
@LAW
def test_stream_equals_cleaning_at_once(chunks: list[bytes]) -> None:
    text = b"".join(chunks).decode("utf-8", "surrogateescape")
    assert b"".join(clean_stream(chunks)) == clean_text(text).encode("utf-8", "surrogateescape")
    single = (bytes([byte]) for byte in b"".join(chunks))
    assert b"".join(clean_stream(single)) == clean_text(text).encode("utf-8", "surrogateescape")
