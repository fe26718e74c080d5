"""Laws of turning bytes into characters as they come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.text.detokenize import StreamDecoder

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=250)

# Bytes near the borders of what UTF-8 allows.
EDGES = st.sampled_from(
    [bytes([b]) for b in (0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0)]
    + [bytes([b]) for b in (0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF)]
    + ["é".encode(), "雨".encode(), "🜁".encode(), "\ufffd".encode()]
)


@given(st.lists(st.one_of(EDGES, st.binary(max_size=5)), max_size=30))
@LAW
def test_any_split_gives_what_decoding_at_once_gives(chunks: list[bytes]) -> None:
    decoder = StreamDecoder()
    text = "".join(decoder.feed(chunk) for chunk in chunks) + decoder.flush()
    assert text == b"".join(chunks).decode("utf-8", "replace")


@given(st.lists(EDGES, max_size=12))
@LAW
def test_bytes_are_held_only_while_a_character_can_come_of_them(chunks: list[bytes]) -> None:
    decoder = StreamDecoder()
    for chunk in chunks:
        decoder.feed(chunk)
    assert decoder.pending == b"" or any(
        _is_character(decoder.pending + rest) for rest in _continuations(4 - len(decoder.pending))
    )


def _continuations(most: int) -> list[bytes]:
    ends = (b"\x80", b"\x90", b"\xa0", b"\xbf")
    found, last = [], [b""]
    for _ in range(most):
        last = [head + end for head in last for end in ends]
        found += last
    return found


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("data", [b"\x80", b"\xff", b"\xc0", b"\xed\xa0", b"\xf4\x90", b"\xe0\x80"])
def test_bytes_that_cannot_become_a_character_show_at_once(data: bytes) -> None:
    decoder = StreamDecoder()
    assert decoder.feed(data).startswith("\ufffd")
    assert decoder.pending == b""


def test_a_genuine_replacement_character_does_not_stall() -> None:
    assert StreamDecoder().feed("\ufffd!".encode()) == "\ufffd!"


def test_pending_are_the_bytes_not_shown() -> None:
    decoder = StreamDecoder()
    assert decoder.feed(b"a\xe9\x9b") == "a"
    assert decoder.pending == b"\xe9\x9b"
    assert decoder.feed(b"\xa8") == "雨"
    assert decoder.pending == b""


def test_after_flush_it_begins_anew() -> None:
    decoder = StreamDecoder()
    decoder.feed(b"\xe9")
    assert decoder.flush() == "\ufffd"
    assert decoder.pending == b""
    assert decoder.feed(b"ok") == "ok"
