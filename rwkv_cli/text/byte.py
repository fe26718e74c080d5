"""Bytes as tokens: the id is the byte; knows nothing of UTF-8."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from rwkv_cli.text.tokenizer import vocabulary_digest


class ByteTokenizer:
    """Vocabulary of 256 ids, as in the tiny byte-level models of rwkv.cpp.

    Id 0 means end of text here as everywhere, so the NUL byte has no token: `encode` drops it.
    """

    name = "bytes"
    vocab_size = 256

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the vocabulary."""
        return vocabulary_digest([self.token_bytes(token) for token in range(self.vocab_size)])

    def token_bytes(self, token: int) -> bytes:
        """The byte itself; empty for id 0 and outside the vocabulary."""
        return bytes([token]) if 0 < token < self.vocab_size else b""

    def encode(self, text: bytes) -> list[int]:
        """Every byte but NUL."""
        return list(text.replace(b"\0", b""))

    def encode_stream(self, chunks: Iterable[bytes]) -> Iterator[list[int]]:
        """Tokens of each chunk."""
        return map(self.encode, chunks)


def open_bytes(_near: Path | None = None) -> ByteTokenizer:
    """The byte tokenizer, which needs no file."""
    return ByteTokenizer()
