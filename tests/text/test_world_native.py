"""The World tokenizer of the C++ library against the one in Python, and against malice."""

from __future__ import annotations

import ctypes
import random
import struct
from array import array
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.native import world as native
from rwkv_cli.native.library import NativeError, check, unavailable_reason
from rwkv_cli.native.world import PackedVocabulary, pack
from rwkv_cli.text import world as world_module
from rwkv_cli.text.tokenizer import ids_without_bytes, vocabulary_digest
from rwkv_cli.text.vocabulary import read_vocabulary
from rwkv_cli.text.world import PackedWorldTokenizer, WorldTokenizer

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no native library: {unavailable_reason()}"
)

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=200)
SOURCE = bytes(range(32))
SINGLES = [b"", *(bytes([byte]) for byte in range(256))]


def packed_from(table: list[bytes]) -> PackedVocabulary:
    return PackedVocabulary(pack(table, vocabulary_digest(table), SOURCE))


@pytest.fixture(scope="module")
def table(world_path: Path) -> list[bytes]:
    return read_vocabulary(world_path)


@pytest.fixture(scope="module")
def plain(table: list[bytes]) -> WorldTokenizer:
    return WorldTokenizer(table)


@pytest.fixture(scope="module")
def packed(table: list[bytes]) -> PackedVocabulary:
    return packed_from(table)


def test_packed_table_is_the_table(table: list[bytes], packed: PackedVocabulary) -> None:
    assert list(packed) == table
    assert packed[250:260] == table[250:260]
    assert (packed[-1], len(packed)) == (table[-1], len(table))
    assert packed.digest == vocabulary_digest(table)
    assert packed.source == SOURCE
    assert packed.longest == max(map(len, table))
    for outside in (len(table), -len(table) - 1, 1 << 40):
        with pytest.raises(IndexError):
            packed[outside]


def test_packing_twice_gives_the_same_bytes(table: list[bytes]) -> None:
    digest = vocabulary_digest(table)
    assert pack(table, digest, SOURCE) == pack(table, digest, SOURCE)


@given(data=st.binary(max_size=400))
@LAW
def test_any_bytes_have_the_tokens_that_python_finds(
    plain: WorldTokenizer, packed: PackedVocabulary, data: bytes
) -> None:
    assert packed.encode(data) == plain.encode(data)


def test_texts_and_broken_texts_have_the_tokens_that_python_finds(
    plain: WorldTokenizer,
    packed: PackedVocabulary,
    random_text: Callable[[random.Random], str],
    random_bytes: Callable[[random.Random], bytes],
) -> None:
    rng = random.Random(11)
    for _ in range(500):
        for data in (random_text(rng).encode(), random_bytes(rng), rng.randbytes(100)):
            assert packed.encode(data) == plain.encode(data)


def test_valid_text_has_the_tokens_of_the_package(
    table: list[bytes],
    packed: PackedVocabulary,
    world_path: Path,
    random_text: Callable[[random.Random], str],
) -> None:
    package = import_module("pyrwkv_tokenizer").WorldTokenizer(str(world_path))
    rng = random.Random(12)
    texts = [random_text(rng) for _ in range(2000)]
    words = [token.decode("utf-8", "ignore") for token in table]
    texts += ["".join(rng.choices(words, k=40)) for _ in range(1000)]
    for text in (*texts, "".join(texts)):
        assert packed.encode(text.encode()) == package.encode(text)


def test_every_token_encodes_to_itself(table: list[bytes], packed: PackedVocabulary) -> None:
    assert [packed.encode(token) for token in table[1:]] == [[i] for i in range(1, len(table))]


def test_long_texts_are_encoded_in_pieces(
    plain: WorldTokenizer, packed: PackedVocabulary, sentences: tuple[str, ...]
) -> None:
    text = "".join(sentences).encode()
    expected = plain.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        for room in (1, 2, 7, len(expected) - 1, len(expected), len(expected) + 1):
            patch.setattr(native, "_PIECE", room)
            assert packed.encode(text) == expected
            assert packed.encode(b"") == []


def test_stream_equals_encoding_at_once(
    packed: PackedVocabulary,
    random_bytes: Callable[[random.Random], bytes],
    split_anyhow: Callable[[random.Random, bytes], Iterator[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(world_module, "_PIECE", 300)
    tokenizer, rng = PackedWorldTokenizer(packed), random.Random(13)
    for _ in range(25):
        data = b"".join(random_bytes(rng) for _ in range(10))
        streamed = tokenizer.encode_stream(split_anyhow(rng, data))
        assert [token for tokens in streamed for token in tokens] == packed.encode(data)


@given(
    extra=st.lists(st.binary(min_size=2, max_size=12), unique=True, max_size=60),
    gaps=st.sets(st.integers(257, 320), max_size=10),
    data=st.binary(max_size=200),
)
@LAW
def test_any_vocabulary_encodes_as_in_python(
    extra: list[bytes], gaps: set[int], data: bytes
) -> None:
    table = list(SINGLES)
    for token in extra:
        while len(table) in gaps:
            table.append(b"")
        table.append(token)
    plain, packed = WorldTokenizer(table), packed_from(table)
    text = data + b"".join(extra) + data
    assert packed.encode(text) == plain.encode(text)
    assert list(packed) == table
    tokenizer = PackedWorldTokenizer(packed)
    for vocab in (1, 258, len(table), len(table) + 9):
        assert ids_without_bytes(tokenizer, vocab) == ids_without_bytes(plain, vocab)


def test_deep_and_bushy_vocabularies_are_packed() -> None:
    runs = [bytes([65]) * size for size in range(2, 3000, 7)]
    pairs = [bytes((a, b)) for a in range(256) for b in range(256)]
    table = [*SINGLES, *runs, *(pair for pair in pairs if pair != b"AA")]
    plain, packed = WorldTokenizer(table), packed_from(table)
    for text in (b"A" * 10_000 + b"b", bytes(range(256)) * 3, b"xA" * 500):
        assert packed.encode(text) == plain._encode_greedily(text)


@pytest.mark.parametrize(
    "table",
    [
        SINGLES[:-1],
        [*SINGLES, b"ab", b"ab"],
        [*SINGLES[:-1], b"ab"],
        [b"x", *SINGLES[1:]],
        [],
    ],
)
def test_what_is_no_vocabulary_is_not_packed(table: list[bytes]) -> None:
    with pytest.raises(NativeError):
        pack(table, "00" * 32, SOURCE)


def test_bad_arguments_are_refused_at_the_border(packed: PackedVocabulary) -> None:
    functions = native._functions()
    held, size, room = packed._held, packed._size, (ctypes.c_int32 * 4)()
    for position, length, capacity in ((-1, 3, 4), (4, 3, 4), (0, -1, 4), (0, 3, -1)):
        at = ctypes.c_int64(position)
        code = functions.rwkv_world_encode(
            held, size, b"abc", length, ctypes.byref(at), room, capacity
        )
        assert code == -1
    for table, bytes_ in ((None, size), (held, 0), (held, -1), (held, size - 1), (held, 127)):
        assert functions.rwkv_world_check(table, bytes_) == -1
        at = ctypes.c_int64(0)
        code = functions.rwkv_world_encode(table, bytes_, b"abc", 3, ctypes.byref(at), room, 4)
        assert code == -1
    sizes = ctypes.c_int64()
    lengths = (ctypes.c_uint32 * 257)(0, *[1] * 255, 0xFFFFFFFF)
    text, label = bytes(range(256)), bytes(64)
    for ids, text_bytes in ((257, 256), (256, 256), (257, -1), (1 << 40, 256)):
        code = functions.rwkv_world_pack(
            text, text_bytes, lengths, ids, label, None, 0, ctypes.byref(sizes)
        )
        assert code == -1
        with pytest.raises(NativeError):
            check(code)


def small_read() -> tuple[list[bytes], str]:
    table = [*SINGLES, b"ab", b"abc"]
    return table, vocabulary_digest(table)


def checksum(data: bytes) -> int:
    """The sum of native/src/world.h."""
    ones = 2**64 - 1

    def mix(lane: int, word: int) -> int:
        lane = ((lane ^ word) * 0x9E3779B97F4A7C15) & ones
        return lane ^ (lane >> 29)

    whole = len(data) - len(data) % 32
    words = array("Q", data[:whole] + data[whole:].ljust(32, b"\0"))
    lanes = [1, 2, 3, 4]
    for i, word in enumerate(words):
        lanes[i % 4] = mix(lanes[i % 4], word)
    total = len(data)
    for lane in lanes:
        total = mix(total, lane)
    return total


def harm(rng: random.Random, mutant: bytearray) -> None:
    """Change a size, or a cell or what lies behind the cells, into something wild or plausible."""
    cells, ids = struct.unpack_from("=I", mutant, 48)[0], len(small_read()[0])
    if rng.random() < 0.2:
        mutant[rng.randrange(32, 56)] = rng.randrange(256)
    elif rng.random() < 0.5:
        at = rng.randrange(128, len(mutant) - 8)
        mutant[at : at + 8] = rng.choice((rng.randbytes(8), bytes(8), b"\xff" * 8))
    else:
        at = 128 + 8 * rng.randrange((len(mutant) - 128) // 8)
        cell = rng.randrange(257) << 55 | rng.randrange(max(cells, 1)) << 32 | rng.randrange(ids)
        struct.pack_into("=Q", mutant, at, cell)


def test_a_table_made_to_harm_does_none() -> None:
    sound = pack(*small_read(), SOURCE)
    assert checksum(sound[32:]) == struct.unpack_from("=Q", sound, 24)[0]
    functions, rng, accepted = native._functions(), random.Random(15), 0
    texts = [b"xabcab" * 20, rng.randbytes(300), b"a" * 300]
    for _ in range(600):
        mutant = bytearray(sound)
        for _ in range(rng.randrange(1, 4)):
            harm(rng, mutant)
        struct.pack_into("=Q", mutant, 24, checksum(mutant[32:]))
        held = (ctypes.c_char * len(mutant)).from_buffer(mutant)
        sensible = functions.rwkv_world_check(held, len(mutant)) == 0
        accepted += sensible
        for text in texts:  # also of tables that would never be used
            room, at = (ctypes.c_int32 * len(text))(), ctypes.c_int64(0)
            count = functions.rwkv_world_encode(
                held, len(mutant), text, len(text), ctypes.byref(at), room, len(text)
            )
            assert 0 < count <= len(text) or (count == -1 and not sensible)
            assert at.value == (len(text) if count > 0 else 0)
    assert 20 < accepted < 580
