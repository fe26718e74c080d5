"""Laws of cutting text where a word begins."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from rwkv_cli.text.pieces import cut_into_pieces

WHITE_SPACE = [chr(point) for point in range(sys.maxunicode + 1) if chr(point).isspace()]


def pieces_of(data: bytes, piece: int = 20, longest: int = 60) -> list[bytes]:
    return list(cut_into_pieces([data], piece=piece, longest=longest))


def test_pieces_joined_are_the_bytes(random_bytes: Callable[[random.Random], bytes]) -> None:
    rng = random.Random(1)
    for _ in range(300):
        data = random_bytes(rng)
        assert b"".join(pieces_of(data)) == data


def test_pieces_do_not_depend_on_the_chunks(
    random_bytes: Callable[[random.Random], bytes],
    split_anyhow: Callable[[random.Random, bytes], Iterator[bytes]],
) -> None:
    rng = random.Random(2)
    for _ in range(300):
        data = random_bytes(rng)
        chunks = split_anyhow(rng, data)
        assert list(cut_into_pieces(chunks, piece=20, longest=60)) == pieces_of(data)


def test_pieces_are_as_long_as_asked(random_bytes: Callable[[random.Random], bytes]) -> None:
    rng = random.Random(3)
    for _ in range(300):
        pieces = pieces_of(random_bytes(rng))
        assert all(len(piece) >= 20 for piece in pieces[:-1])
        assert all(len(piece) <= 60 for piece in pieces)


def test_a_long_word_is_cut_between_characters() -> None:
    for character in "aж雨🜁":
        for size in range(57, 64):
            pieces = pieces_of(character.encode() * 100, longest=size)
            assert "".join(piece.decode() for piece in pieces) == character * 100


@pytest.mark.parametrize("space", WHITE_SPACE)
def test_no_cut_falls_after_white_space(space: str) -> None:
    text = "a" * 30 + space + " b" + "c" * 30
    assert (space + " ").encode() not in {
        before[-len(space.encode()) :] + after[:1]
        for before, after in zip(
            pieces_of(text.encode()), pieces_of(text.encode())[1:], strict=False
        )
    }


@pytest.mark.parametrize("letter", ["a", ".", "7", "é", "雨", "🜁", "\u200b", "\u0301"])
def test_a_cut_falls_before_a_space_that_follows_a_letter(letter: str) -> None:
    text = "a" * 30 + letter + " b"
    assert pieces_of(text.encode()) == [("a" * 30 + letter).encode(), b" b"]


def test_no_word_of_the_gpt2_expression_lies_across_a_cut(
    random_text: Callable[[random.Random], str],
) -> None:
    tokenizers = import_module("tokenizers")
    words = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    compose = tokenizers.normalizers.NFC()

    def split(text: str) -> list[str]:
        return [word for word, _ in words.pre_tokenize_str(compose.normalize_str(text))]

    rng = random.Random(4)
    for _ in range(1000):
        # Longest as long as the text: no piece is cut for want of a good place.
        text = random_text(rng)
        pieces = pieces_of(text.encode(), piece=1, longest=len(text.encode()))
        assert [word for piece in pieces for word in split(piece.decode())] == split(text)
