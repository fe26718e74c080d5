"""Byte-level BPE through the library `tokenizers` (20B, demo); knows no prompt format.

Text that is valid UTF-8 goes through the library, piece by piece as `pieces` cuts it. Every byte
that is not becomes the token of that byte alone, or U+FFFD where the vocabulary has no such token
(20B has none for 0xF5 and up, among others). Text that looks like a special token is plain text.
The 20B tokenizer composes characters (NFC), so decomposed ones come back composed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.errors import NotFoundError, RefusedError
from rwkv_cli.places import models_folder
from rwkv_cli.text.pieces import cut_into_pieces
from rwkv_cli.text.tokenizer import vocabulary_digest

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

FILE_NAME = "20B_tokenizer.json"
_NAMES_20B = (FILE_NAME, "tokenizer.json")  # the second in Hugging Face folders
_VOCAB_20B = 50277
_DEMO_PATH = Path(__file__).parents[1] / "data" / "demo_tokenizer.json"
_MAX_BYTES = 64 << 20

# Bytes that are not UTF-8, as "surrogateescape" decodes them.
_RUNS = re.compile("[\udc80-\udcff]|[^\udc80-\udcff]+")


class BpeTokenizer:
    """A tokenizer of the library with every byte covered and no special tokens in text."""

    def __init__(self, library: Library, *, name: str) -> None:
        """Take over a tokenizer that `open_file` found fit."""
        self.name = name
        self._library = library
        self._added = library.get_added_tokens_decoder()
        self._bytes: dict[int, bytes] = {}

    @cached_property
    def vocab_size(self) -> int:
        """The highest id plus one."""
        return max(self._library.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the vocabulary."""
        return vocabulary_digest([self.token_bytes(token) for token in range(self.vocab_size)])

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token; empty for id 0, special tokens and ids that do not exist."""
        if token not in self._bytes:
            self._bytes[token] = self._look_up(token)
        return self._bytes[token]

    def encode(self, text: bytes) -> list[int]:
        """Tokens of any bytes, valid UTF-8 or not."""
        return [token for tokens in self.encode_stream([text]) for token in tokens]

    def encode_stream(self, chunks: Iterable[bytes]) -> Iterator[list[int]]:
        """Tokens of the chunks joined, exactly as `encode` gives them, in bounded memory."""
        return map(self._encode_piece, cut_into_pieces(chunks))

    def _encode_piece(self, piece: bytes) -> list[int]:
        tokens: list[int] = []
        for run in _RUNS.findall(piece.decode("utf-8", "surrogateescape")):
            if "\udc80" <= run <= "\udcff":
                tokens += self._byte_tokens[ord(run) - 0xDC00]
            else:
                tokens += self._encode_text(run)
        return tokens

    def _encode_text(self, text: str) -> list[int]:
        return self._library.encode(text, add_special_tokens=False).ids

    @cached_property
    def _byte_tokens(self) -> dict[int, list[int]]:
        """Tokens for each byte that is not UTF-8."""
        letters = self._byte_of_letter.items()
        ids = {byte: self._library.token_to_id(chr(letter)) for letter, byte in letters}
        unknown = self._encode_text("\ufffd")
        return {byte: unknown if token is None else [token] for byte, token in ids.items()}

    def _look_up(self, token: int) -> bytes:
        if not 0 < token < 1 << 32:
            return b""
        added = self._added.get(token)
        if added is not None:
            return b"" if added.special else added.content.encode("utf-8")
        letters = self._library.id_to_token(token) or ""
        try:
            return letters.translate(self._byte_of_letter).encode("latin-1")
        except UnicodeEncodeError:  # no byte is written so: no text encodes to this token
            return b""

    @cached_property
    def _byte_of_letter(self) -> dict[int, int]:
        """The letter (its code point) that stands for each byte in the vocabulary.

        Printable Latin-1 characters are themselves; the other bytes, in order, follow from U+0100
        on (GPT-2, bytes_to_unicode).
        """
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in set(printable)]
        beyond = {0x100 + place: byte for place, byte in enumerate(others)}
        return {byte: byte for byte in printable} | beyond


def open_20b(near: Path | None = None) -> BpeTokenizer:
    """The tokenizer of the Pile and Raven models, from where `find_20b` finds it.

    Raises:
        NotFoundError: The file is nowhere.
        RefusedError: The file beside the model is another tokenizer.
    """
    path = find_20b(near)
    if path is not None:
        tokenizer = open_file(path)
        if tokenizer.name != "20b":
            raise RefusedError(
                f"{path} has {tokenizer.vocab_size} tokens; the 20B tokenizer has {_VOCAB_20B}"
            )
        return tokenizer
    raise NotFoundError(
        f"Pile and Raven models need {FILE_NAME}, and it is not beside the model",
        hint=f"put {FILE_NAME} (from the GPT-NeoX or ChatRWKV repository) into {models_folder()}, "
        "or download a model of that kind, which brings it along: rwkv download pile-169m",
    )


def find_20b(near: Path | None = None) -> Path | None:
    """Find the file of that tokenizer in the folder `near`, among the models, or in the package
    `rwkv`.
    """
    paths = [] if near is None else [near / name for name in _NAMES_20B]
    paths.append(models_folder() / FILE_NAME)  # where a download puts it
    spec = find_spec("rwkv")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        paths += [Path(folder) / name for name in _NAMES_20B]
    return next((path for path in paths if path.is_file()), None)


def open_demo(_near: Path | None = None) -> BpeTokenizer:
    """The tokenizer of the built-in demo model, which comes with this package."""
    return BpeTokenizer(_load(_DEMO_PATH), name="demo")


def open_file(path: Path) -> BpeTokenizer:
    """A tokenizer from a file of the library; named "20b" by its size, else after the file.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: The file is no tokenizer, or one that does not work as this module needs.
    """
    library = _load(path)
    is_20b = library.get_vocab_size(with_added_tokens=True) == _VOCAB_20B
    return BpeTokenizer(library, name="20b" if is_20b else path.stem)


def _load(path: Path) -> Library:
    if not path.is_file():
        raise NotFoundError(f"no tokenizer file at {path}")
    if path.stat().st_size > _MAX_BYTES:
        raise RefusedError(f"{path} is too large for a tokenizer: more than {_MAX_BYTES >> 20} MiB")
    tokenizers = import_module("tokenizers")
    try:
        library: Library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise RefusedError(f"{path} is not a tokenizer file ({error})") from error
    library.encode_special_tokens = True  # as ordinary text
    library.no_truncation()
    library.no_padding()
    if reason := _unfit(library):
        raise RefusedError(f"{path} is a tokenizer of another kind: {reason}")
    return library


def _unfit(library: Library) -> str | None:
    """Why this module could not keep its promises with a tokenizer; None when it can."""
    tokenizers = import_module("tokenizers")
    model, words, normalizer = library.model, library.pre_tokenizer, library.normalizer
    if not isinstance(model, tokenizers.models.BPE) or model.dropout:
        return "its model is not BPE without dropout"
    if not isinstance(words, tokenizers.pre_tokenizers.ByteLevel) or words.add_prefix_space:
        return "its pre-tokenizer is not ByteLevel without prefix space"
    if not words.use_regex:
        return "its pre-tokenizer does not split words"
    if normalizer is not None and not isinstance(normalizer, tokenizers.normalizers.NFC):
        return "its normalizer is not NFC"
    end = library.decode([0], skip_special_tokens=False)
    if 0 in library.encode(end, add_special_tokens=False).ids:
        return f"its id 0 has to mean end of text, and is what {end!r} encodes to"
    return None
