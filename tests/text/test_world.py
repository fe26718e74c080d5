"""Laws of the World tokenizer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.errors import NotFoundError
from rwkv_cli.text import world as world_module
from rwkv_cli.text.tokenizer import ids_without_bytes, vocabulary_digest
from rwkv_cli.text.vocabulary import read_vocabulary
from rwkv_cli.text.world import WorldTokenizer, open_file, open_world

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=200)


@pytest.fixture
def with_package(world_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorldTokenizer:
    """The tokenizer that lets the package encode from the first byte on."""
    monkeypatch.setattr(world_module, "_WORTH_PACKAGE", 0)
    tokenizer = WorldTokenizer(read_vocabulary(world_path), package_file=world_path)
    tokenizer.encode(b"")
    assert "_package" in vars(tokenizer)
    return tokenizer


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello world", [33155, 40213]),
        ("你好", [10464, 11685]),
        (" 42", [3515]),
        ("\n\n", [261]),
        ("✿", [10060]),
        ("\0", [1]),
        ("", []),
    ],
)
def test_known_texts_have_their_known_tokens(
    world: WorldTokenizer, text: str, tokens: list[int]
) -> None:
    assert world.encode(text.encode()) == tokens


def test_tokens_in_many_scripts_equal_the_reference(
    world: WorldTokenizer,
    reference_encode: Callable[[bytes], list[int]],
    sentences: tuple[str, ...],
) -> None:
    for sentence in (*sentences, "".join(sentences)):
        assert world.encode(sentence.encode()) == reference_encode(sentence.encode())


def test_tokens_of_random_texts_equal_the_reference(
    world: WorldTokenizer,
    reference_encode: Callable[[bytes], list[int]],
    random_text: Callable[[random.Random], str],
) -> None:
    rng = random.Random(1)
    for _ in range(2000):
        text = random_text(rng).encode()
        assert world.encode(text) == reference_encode(text)


def test_tokens_of_broken_bytes_equal_the_reference(
    world: WorldTokenizer,
    reference_encode: Callable[[bytes], list[int]],
    random_bytes: Callable[[random.Random], bytes],
) -> None:
    rng = random.Random(2)
    for _ in range(500):
        data = random_bytes(rng) + rng.randbytes(50)
        assert world.encode(data) == reference_encode(data)


def test_tokens_of_joined_vocabulary_entries_equal_the_reference(
    world: WorldTokenizer, reference_encode: Callable[[bytes], list[int]]
) -> None:
    rng = random.Random(3)
    for _ in range(200):
        data = b"".join(world.token_bytes(rng.randrange(1, 65530)) for _ in range(30))
        assert world.encode(data) == reference_encode(data)


def test_every_token_encodes_to_itself(world: WorldTokenizer) -> None:
    for token in range(1, world.vocab_size):
        assert world.encode(world.token_bytes(token)) == [token]


def test_short_and_long_texts_are_matched_alike(
    world: WorldTokenizer,
    random_bytes: Callable[[random.Random], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(4)
    texts = [random_bytes(rng) for _ in range(300)]
    monkeypatch.setattr(world_module, "_WORTH_PREFIXES", 1 << 30)
    short = [world.encode(text) for text in texts]
    monkeypatch.setattr(world_module, "_WORTH_PREFIXES", 0)
    assert [world.encode(text) for text in texts] == short


def test_package_encoder_equals_ours(
    world: WorldTokenizer,
    with_package: WorldTokenizer,
    random_text: Callable[[random.Random], str],
    random_bytes: Callable[[random.Random], bytes],
) -> None:
    rng = random.Random(5)
    for _ in range(2000):
        text = random_text(rng).encode()
        assert with_package.encode(text) == world.encode(text)
    for _ in range(300):
        data = random_bytes(rng)
        assert with_package.encode(data) == world.encode(data)


@given(data=st.binary(max_size=300))
@LAW
def test_decoding_gives_back_any_bytes(
    world: WorldTokenizer, decode: Callable[[WorldTokenizer, list[int]], bytes], data: bytes
) -> None:
    tokens = world.encode(data)
    assert decode(world, tokens) == data
    assert 0 not in tokens


@pytest.mark.parametrize("through_package", [False, True])
def test_stream_equals_encoding_at_once(
    world: WorldTokenizer,
    with_package: WorldTokenizer,
    random_bytes: Callable[[random.Random], bytes],
    split_anyhow: Callable[[random.Random, bytes], Iterator[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    through_package: bool,
) -> None:
    tokenizer = with_package if through_package else world
    monkeypatch.setattr(world_module, "_PIECE", 300)
    rng = random.Random(6)
    for _ in range(25):
        data = b"".join(random_bytes(rng) for _ in range(10))
        streamed = tokenizer.encode_stream(split_anyhow(rng, data))
        assert [token for tokens in streamed for token in tokens] == world.encode(data)


@pytest.mark.parametrize("unit", [b"-", b" ", b"\x80", "雨".encode(), b"=\n"])
def test_stream_of_repetitions_equals_encoding_at_once(world: WorldTokenizer, unit: bytes) -> None:
    data = unit * 100_000
    streamed = world.encode_stream(data[i : i + 9999] for i in range(0, len(data), 9999))
    assert [token for tokens in streamed for token in tokens] == world.encode(data)


def test_stream_holds_back_little(world: WorldTokenizer) -> None:
    fed = 0

    def chunks() -> Iterator[bytes]:
        nonlocal fed
        for _ in range(40):
            fed += 8 << 10
            yield b"word " * 1638 + b"w "

    given_out = 0
    for tokens in world.encode_stream(chunks()):
        given_out += sum(len(world.token_bytes(token)) for token in tokens)
        assert fed - given_out < (64 << 10) + (8 << 10)
    assert given_out == fed


def test_ids_without_bytes_are_those_past_the_vocabulary(world: WorldTokenizer) -> None:
    assert world.vocab_size == 65530
    assert ids_without_bytes(world, 65536) == [65530, 65531, 65532, 65533, 65534, 65535]


@pytest.mark.parametrize("token", [0, -1, 65530, 1 << 40])
def test_ids_outside_the_vocabulary_have_no_bytes(world: WorldTokenizer, token: int) -> None:
    assert world.token_bytes(token) == b""


def test_digest_tells_the_vocabulary(world: WorldTokenizer, world_path: Path) -> None:
    table = read_vocabulary(world_path)
    assert world.digest == vocabulary_digest(table)
    assert world.digest == "38ab553dbcde3ac8841601fc5bba7b273da509b1922a29ff532b742f4f053f30"
    table[300], table[301] = table[301], table[300]
    assert vocabulary_digest(table) != world.digest


def test_digest_tells_where_tokens_end() -> None:
    assert vocabulary_digest([b"", b"ab", b"c"]) != vocabulary_digest([b"", b"a", b"bc"])


def test_a_file_is_named_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "letters.txt"
    lines = [f"{byte + 1} {bytes([byte])!r} 1\n" for byte in range(256)]
    path.write_text("".join([*lines, "257 'ab' 2\n"]))
    tokenizer = open_file(path)
    assert tokenizer.name == "letters"
    assert tokenizer.encode(b"abba") == [257, 99, 98]


def test_without_the_package_the_models_folder_is_searched(
    world: WorldTokenizer, world_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "find_spec", lambda _name: None)
    with pytest.raises(NotFoundError, match="pyrwkv-tokenizer"):
        open_world(tmp_path)
    (tmp_path / world_module.FILE_NAME).write_bytes(world_path.read_bytes())
    assert open_world(tmp_path).digest == world.digest
