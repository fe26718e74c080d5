"""The World tokenizer: greedy longest match over bytes; knows no words and no special tokens.

Of the tokens that fit at a position the longest is taken, from left to right, over the bytes of
UTF-8 or any others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Protocol

from rwkv_cli.errors import NotFoundError
from rwkv_cli.native.world import PackedVocabulary, cached_vocabulary
from rwkv_cli.text.tokenizer import vocabulary_digest
from rwkv_cli.text.vocabulary import parse_vocabulary, vocabulary_file

FILE_NAME = "rwkv_vocab_v20230424.txt"
_PACKAGES = ("pyrwkv_tokenizer", "rwkv")

# The table of lengths by prefix takes 15 ms to build: as long as matching this much without it.
_WORTH_PREFIXES = 4 << 10
# The package's encoder reads 25 to 65 MB/s where this one reads 2 to 5, but building it costs
# 240 ms and 230 MB of memory.
_WORTH_PACKAGE = 4 << 20
_PIECE = 64 << 10


class _Encoder(Protocol):
    def encode(self, text: str, /) -> list[int]: ...


class WorldTokenizer:
    """Greedy longest match over a table of byte strings."""

    def __init__(
        self, table: Sequence[bytes], *, name: str = "world", package_file: Path | None = None
    ) -> None:
        """Take the bytes of each id from 0 on; every single byte must be among them.

        Args:
            table: As `read_vocabulary` gives it.
            name: What it is called.
            package_file: The same vocabulary as a file that the package `pyrwkv_tokenizer` can
                read; None never uses it.
        """
        self.name = name
        self.vocab_size = len(table)
        self._table = table
        self._package_file = package_file
        self._encoded_bytes = 0

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the vocabulary."""
        return vocabulary_digest(self._table)

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token; empty for id 0 and outside the vocabulary."""
        return self._table[token] if 0 < token < self.vocab_size else b""

    def encode(self, text: bytes) -> list[int]:
        """Tokens of any bytes, valid UTF-8 or not."""
        self._encoded_bytes += len(text)
        if self._encoded_bytes >= _WORTH_PACKAGE and self._package is not None:
            try:
                return self._package.encode(text.decode("utf-8"))
            except UnicodeDecodeError:
                # All of it, not only the bad bytes: a longest match may lie across them.
                return self._encode_greedily(text)
        return self._encode_greedily(text)

    def encode_stream(self, chunks: Iterable[bytes]) -> Iterator[list[int]]:
        """Tokens of the chunks joined, exactly as `encode` gives them, in bounded memory."""
        held = bytearray()
        for chunk in chunks:
            held += chunk
            if len(held) >= _PIECE:
                tokens, used = self._settled(bytes(held))
                yield tokens
                del held[:used]
        if held:
            yield self.encode(bytes(held))

    def _settled(self, piece: bytes) -> tuple[list[int], int]:
        """Tokens at the start of a piece that no later byte can change, and the bytes they take.

        Settled is a token that has the longest token's length before it to the end. The cut falls
        between two characters where there is such a place near, which keeps the rest valid UTF-8.
        """
        end = len(piece)
        while end > len(piece) - 4 and piece[end - 1] & 0xC0 == 0x80:
            end -= 1
        end -= 1  # the last character may be incomplete
        tokens = self.encode(piece[:end])
        limit = end - self._longest
        start = end
        while tokens and (start > limit or (start > limit - 64 and piece[start] & 0xC0 == 0x80)):
            start -= len(self._table[tokens.pop()])
        return tokens, start

    def _encode_greedily(self, text: bytes) -> list[int]:
        lengths_by_prefix = self._lengths_by_prefix if len(text) >= _WORTH_PREFIXES else {}
        other = (1,) if lengths_by_prefix else self._lengths
        id_of = self._ids.get
        tokens = []
        position, end = 0, len(text)
        while position < end:
            for length in lengths_by_prefix.get(text[position : position + 2], other):
                token = id_of(text[position : position + length])
                if token is not None:
                    tokens.append(token)
                    position += length
                    break
        return tokens

    @cached_property
    def _longest(self) -> int:
        """Bytes of the longest token."""
        return self._lengths[0]

    @cached_property
    def _ids(self) -> Mapping[bytes, int]:
        ids = dict(zip(self._table, range(self.vocab_size), strict=True))
        del ids[b""]
        return ids

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        """Lengths of tokens, longest first."""
        return tuple(sorted(set(map(len, self._ids)), reverse=True))

    @cached_property
    def _lengths_by_prefix(self) -> Mapping[bytes, tuple[int, ...]]:
        """Lengths of the tokens that begin with two given bytes, longest first; always with 1."""
        lengths: dict[bytes, tuple[int, ...]] = {}
        for length, tokens in groupby(sorted(self._ids, key=len), key=len):
            for prefix in {token[:2] for token in tokens}:
                lengths[prefix] = (length, *lengths.get(prefix, (1,)))
        return lengths

    @cached_property
    def _package(self) -> _Encoder | None:
        """The package's encoder over the same vocabulary; None where it is not installed."""
        if self._package_file is None:
            return None
        try:
            package = import_module("pyrwkv_tokenizer")
        except ImportError:
            return None
        encoder: _Encoder = package.WorldTokenizer(str(self._package_file))
        return encoder


class PackedWorldTokenizer(WorldTokenizer):
    """The same over a table packed by the C++ library, which also does the matching."""

    def __init__(self, packed: PackedVocabulary, *, name: str = "world") -> None:
        super().__init__(packed, name=name)
        self._packed = packed

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the vocabulary."""
        return self._packed.digest

    @property
    def _longest(self) -> int:
        return self._packed.longest

    def encode(self, text: bytes) -> list[int]:
        """Tokens of any bytes, valid UTF-8 or not."""
        return self._packed.encode(text)

    def silent_ids(self, vocab: int) -> list[int]:
        """Ids from 1 up to a model's vocabulary that have no bytes."""
        own = [token for token in self._packed.silent_ids() if token < vocab]
        return own + list(range(self.vocab_size, vocab))


def open_world(near: Path | None = None) -> WorldTokenizer:
    """The World tokenizer, its vocabulary from an installed package or else from the folder `near`.

    Raises:
        NotFoundError: The vocabulary is nowhere.
        RefusedError: The file is not a vocabulary.
    """
    for package in _PACKAGES:
        # Finding a package does not import it: its compiled part is not needed to read a text file.
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder, FILE_NAME)
            if path.is_file():
                return _open(path, "world", package_file=path)
    if near is not None and (near / FILE_NAME).is_file():
        return _open(near / FILE_NAME, "world")
    raise NotFoundError(
        "the World vocabulary is missing: it comes with the package pyrwkv-tokenizer",
        hint=f"pip install pyrwkv-tokenizer, or put {FILE_NAME} beside the model",
    )


def open_file(path: Path) -> WorldTokenizer:
    """A tokenizer over a vocabulary file; named after it unless it is the World vocabulary.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: The file is not a vocabulary.
    """
    return _open(path, "world" if path.name == FILE_NAME else path.stem)


def _open(path: Path, name: str, *, package_file: Path | None = None) -> WorldTokenizer:
    """A tokenizer over a vocabulary file: packed where that can be, else in Python."""
    data = vocabulary_file(path)

    def read() -> tuple[list[bytes], str]:
        table = parse_vocabulary(data, path)
        return table, vocabulary_digest(table)

    packed = cached_vocabulary(hashlib.sha256(data).digest(), read)
    if packed is not None:
        return PackedWorldTokenizer(packed, name=name)
    return WorldTokenizer(parse_vocabulary(data, path), name=name, package_file=package_file)
