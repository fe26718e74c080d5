"""What every tokenizer can do, and what follows from it; knows no vocabulary and no model."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable


class Tokenizer(Protocol):
    """Bytes to token ids and back; id 0 means end of text, has no bytes and comes from no text."""

    @property
    def name(self) -> str:
        """Its name in the registry, or the stem of the file that it came from."""
        ...

    @property
    def vocab_size(self) -> int:
        """The highest id plus one."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the vocabulary as `vocabulary_digest` writes it."""
        ...

    def encode(self, text: bytes) -> list[int]:
        """Tokens of any bytes, valid UTF-8 or not; never raises, never gives id 0."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token; empty for id 0 and for every id that has none."""
        ...

    def encode_stream(self, chunks: Iterable[bytes]) -> Iterator[list[int]]:
        """Tokens of the chunks joined, exactly as `encode` gives them, in bounded memory."""
        ...


@runtime_checkable
class KnowsSilentIds(Protocol):
    """A tokenizer that need not look at every id to tell which ones have no bytes."""

    def silent_ids(self, vocab: int) -> list[int]:
        """Ids from 1 up to a model's vocabulary that have no bytes."""
        ...


def ids_without_bytes(tokenizer: Tokenizer, vocab: int) -> list[int]:
    """Ids from 1 up to a model's vocabulary that have no bytes, which must never be sampled.

    Padding rows of a model's head are among them. Id 0 is not: it means end of text.
    """
    if isinstance(tokenizer, KnowsSilentIds):
        return tokenizer.silent_ids(vocab)
    return [token for token in range(1, vocab) if not tokenizer.token_bytes(token)]


def vocabulary_digest(table: Sequence[bytes]) -> str:
    """SHA-256, in hex, of a vocabulary given as the bytes of each id from 0 on.

    Hashed are the number of ids, the length of each one's bytes, then all the bytes (little-endian
    32-bit numbers), so that two vocabularies agree exactly when every id has the same bytes.
    """
    sizes = struct.pack(f"<{len(table) + 1}I", len(table), *map(len, table))
    return hashlib.sha256(sizes + b"".join(table)).hexdigest()
