"""Laws of the byte-level BPE tokenizers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rwkv_cli.errors import NotFoundError, RefusedError
from rwkv_cli.text import bpe, pieces
from rwkv_cli.text.bpe import BpeTokenizer, open_20b, open_file
from rwkv_cli.text.tokenizer import ids_without_bytes


@pytest.fixture(scope="session")
def path_20b(shared_data: Path) -> Path:
    """The 20B tokenizer's file."""
    path = shared_data / bpe.FILE_NAME
    if not path.is_file():
        pytest.skip(f"no {bpe.FILE_NAME} among the real files")
    return path


@pytest.fixture(scope="session", params=["small", "20b"])
def path(request: pytest.FixtureRequest) -> Path:
    """A tokenizer file: a small one without normalization, and the 20B one with NFC."""
    fixture = "small_bpe_path" if request.param == "small" else "path_20b"
    found: Path = request.getfixturevalue(fixture)
    return found


@pytest.fixture(scope="session")
def tokenizer(path: Path) -> BpeTokenizer:
    """Ours."""
    return open_file(path)


@pytest.fixture(scope="session")
def library(path: Path) -> Any:
    """The library's own."""
    return import_module("tokenizers").Tokenizer.from_file(str(path))


def test_tokens_of_texts_equal_the_library(
    tokenizer: BpeTokenizer,
    library: Any,
    sentences: tuple[str, ...],
    random_text: Callable[[random.Random], str],
) -> None:
    rng = random.Random(1)
    for text in (*sentences, *(random_text(rng) for _ in range(200))):
        assert tokenizer.encode(text.encode()) == library.encode(text).ids


def test_tokens_of_a_long_text_in_pieces_equal_the_library(
    tokenizer: BpeTokenizer, library: Any, random_text: Callable[[random.Random], str]
) -> None:
    rng = random.Random(2)
    text = "".join(random_text(rng) for _ in range(1000))
    assert len(text.encode()) > 3 * pieces.PIECE
    assert tokenizer.encode(text.encode()) == library.encode(text).ids


def test_stream_equals_encoding_at_once(
    tokenizer: BpeTokenizer,
    random_bytes: Callable[[random.Random], bytes],
    split_anyhow: Callable[[random.Random, bytes], Iterator[bytes]],
) -> None:
    rng = random.Random(3)
    for size in (1, 50, 1500):
        data = b"".join(random_bytes(rng) for _ in range(size))
        streamed = tokenizer.encode_stream(split_anyhow(rng, data))
        assert [token for tokens in streamed for token in tokens] == tokenizer.encode(data)


def test_stream_of_one_endless_word_equals_encoding_at_once(tokenizer: BpeTokenizer) -> None:
    data = "雨".encode() * 355_000
    streamed = tokenizer.encode_stream(data[i : i + 99_999] for i in range(0, len(data), 99_999))
    assert [token for tokens in streamed for token in tokens] == tokenizer.encode(data)


def test_decoding_without_normalization_gives_back_any_bytes(
    small_bpe_path: Path,
    random_bytes: Callable[[random.Random], bytes],
    decode: Callable[[BpeTokenizer, list[int]], bytes],
) -> None:
    tokenizer = open_file(small_bpe_path)
    rng = random.Random(4)
    for _ in range(300):
        data = random_bytes(rng)
        assert decode(tokenizer, tokenizer.encode(data)) == data


def test_20b_gives_back_composed_text_and_replaces_bytes_it_lacks(
    path_20b: Path, decode: Callable[[BpeTokenizer, list[int]], bytes]
) -> None:
    tokenizer = open_file(path_20b)
    for data, back in (
        ("cafe\u0301".encode(), "café".encode()),
        (b"\x80 \xe2\x82 ", b"\x80 \xe2\x82 "),
        (b"a\xffb\xc0", "a\ufffdb\ufffd".encode()),
    ):
        assert decode(tokenizer, tokenizer.encode(data)) == back


@pytest.mark.parametrize("typed", ["<|endoftext|>", "a<|endoftext|>b", " <|padding|>\n"])
def test_typed_special_tokens_are_plain_text(
    tokenizer: BpeTokenizer, decode: Callable[[BpeTokenizer, list[int]], bytes], typed: str
) -> None:
    tokens = tokenizer.encode(typed.encode())
    assert 0 not in tokens
    assert decode(tokenizer, tokens) == typed.encode()


def test_any_bytes_encode_and_never_to_the_end_of_text(tokenizer: BpeTokenizer) -> None:
    rng = random.Random(5)
    for size in range(200):
        assert 0 not in tokenizer.encode(rng.randbytes(size))
    assert tokenizer.encode(b"") == []


def test_bytes_of_tokens_equal_the_librarys_decoding(tokenizer: BpeTokenizer, library: Any) -> None:
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_bytes(token).decode("utf-8", "replace")
        assert text == library.decode([token])


def test_special_tokens_and_padding_have_no_bytes(path_20b: Path) -> None:
    tokenizer = open_file(path_20b)
    assert tokenizer.vocab_size == 50277
    assert ids_without_bytes(tokenizer, 50304) == [1, *range(50277, 50304)]


@pytest.mark.parametrize("token", [0, -1, 1 << 20, 1 << 40])
def test_ids_outside_the_vocabulary_have_no_bytes(tokenizer: BpeTokenizer, token: int) -> None:
    assert tokenizer.token_bytes(token) == b""


def test_runs_of_spaces_keep_their_own_tokens(path_20b: Path) -> None:
    tokenizer = open_file(path_20b)
    assert tokenizer.encode(b"x" + b" " * 24 + b"y") == [89, 50254, 90]
    assert tokenizer.token_bytes(50254) == b" " * 24


def test_20b_is_found_beside_the_model(path_20b: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(path_20b.read_bytes())
    assert open_20b(tmp_path).name == "20b"


def test_20b_is_found_among_the_models_wherever_the_model_lies(
    path_20b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpe, "find_spec", lambda _name: None)
    monkeypatch.setenv("RWKV_MODELS_DIR", str(tmp_path))
    (tmp_path / "20B_tokenizer.json").write_bytes(path_20b.read_bytes())
    assert open_20b(tmp_path / "elsewhere").name == "20b"


def test_another_tokenizer_beside_the_model_is_refused(
    small_bpe_path: Path, tmp_path: Path
) -> None:
    (tmp_path / bpe.FILE_NAME).write_bytes(small_bpe_path.read_bytes())
    with pytest.raises(RefusedError, match="50277"):
        open_20b(tmp_path)


def test_without_its_file_20b_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "find_spec", lambda _name: None)
    monkeypatch.setenv("RWKV_MODELS_DIR", str(tmp_path / "models"))
    with pytest.raises(NotFoundError) as caught:
        open_20b(tmp_path)
    assert bpe.FILE_NAME in str(caught.value.hint)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "NFC"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "ByteLevel"),
        (
            {
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": True,
                    "trim_offsets": True,
                    "use_regex": True,
                }
            },
            "prefix space",
        ),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "BPE"),
        ({"model": None}, "not a tokenizer"),
    ],
)
def test_tokenizers_of_another_kind_are_refused(
    small_bpe_path: Path, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    content = json.loads(small_bpe_path.read_text("utf-8")) | change
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(RefusedError, match=reason):
        open_file(path)


def test_a_tokenizer_whose_id_0_is_text_is_refused(small_bpe_path: Path, tmp_path: Path) -> None:
    content = json.loads(small_bpe_path.read_text("utf-8")) | {"added_tokens": []}
    vocabulary = content["model"]["vocab"]
    end = "<|endoftext|>"
    vocabulary["!"], vocabulary[end] = vocabulary[end], vocabulary["!"]
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(RefusedError, match="id 0"):
        open_file(path)


def test_the_demo_tokenizer_is_fit(decode: Callable[[BpeTokenizer, list[int]], bytes]) -> None:
    if not bpe._DEMO_PATH.is_file():
        pytest.skip("the demo model is not built")
    tokenizer = bpe.open_demo()
    assert tokenizer.name == "demo"
    assert tokenizer.vocab_size == 2048
    data = "Hi <|endoftext|> there\n\nUser: 雨\xff".encode() + b"\xff\x00"
    tokens = tokenizer.encode(data)
    assert decode(tokenizer, tokens) == data
    assert 0 not in tokens
