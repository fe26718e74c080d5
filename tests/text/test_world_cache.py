"""The cache of packed vocabularies: filled once, proof against damage, done without if need be."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rwkv_cli.native import library as native_library
from rwkv_cli.native import world as native
from rwkv_cli.native.library import Found, find, unavailable_reason
from rwkv_cli.native.world import cached_vocabulary
from rwkv_cli.text.tokenizer import vocabulary_digest
from rwkv_cli.text.vocabulary import read_vocabulary
from rwkv_cli.text.world import PackedWorldTokenizer, WorldTokenizer, open_file, open_world

pytestmark = pytest.mark.skipif(
    unavailable_reason() is not None, reason=f"no native library: {unavailable_reason()}"
)

SOURCE = bytes(range(32))
SINGLES = [b"", *(bytes([byte]) for byte in range(256))]


@pytest.fixture(scope="module")
def table(world_path: Path) -> list[bytes]:
    return read_vocabulary(world_path)


@pytest.fixture(scope="module")
def plain(table: list[bytes]) -> WorldTokenizer:
    return WorldTokenizer(table)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RWKV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def test_first_opening_packs_and_the_second_maps(cache: Path, table: list[bytes]) -> None:
    reads = []

    def read() -> tuple[list[bytes], str]:
        reads.append(1)
        return table, vocabulary_digest(table)

    first = cached_vocabulary(SOURCE, read)
    second = cached_vocabulary(SOURCE, read)
    assert first is not None
    assert second is not None
    assert first.encode(b"Hello world") == second.encode(b"Hello world") == [33155, 40213]
    assert len(reads) == 1
    assert len(files(cache)) == 1


def small_read() -> tuple[list[bytes], str]:
    table = [*SINGLES, b"ab", b"abc"]
    return table, vocabulary_digest(table)


def spoil(path: Path, change: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def test_damage_anywhere_is_noticed_and_repaired(cache: Path) -> None:
    assert cached_vocabulary(SOURCE, small_read) is not None
    (path,) = files(cache)
    sound = path.read_bytes()
    rng = random.Random(14)
    for place in (*range(0, 128, 3), *rng.sample(range(128, len(sound)), 100)):

        def flip(content: bytearray, place: int = place) -> None:
            content[place] ^= 1 << rng.randrange(8)

        spoil(path, flip)
        found = cached_vocabulary(SOURCE, small_read)
        assert found is not None
        assert found.encode(b"xabcab") == [121, 258, 257]
        assert path.read_bytes() == sound


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 1000, -1])
def test_a_part_of_a_file_is_noticed_and_repaired(cache: Path, size: int) -> None:
    assert cached_vocabulary(SOURCE, small_read) is not None
    (path,) = files(cache)
    sound = path.read_bytes()
    for content in (sound[:size], sound + b"\0"):
        path.write_bytes(content)
        found = cached_vocabulary(SOURCE, small_read)
        assert found is not None
        assert found.encode(b"abc") == [258]
        assert path.read_bytes() == sound


def test_the_file_of_another_vocabulary_is_not_taken(cache: Path) -> None:
    other = bytes(32)
    assert cached_vocabulary(SOURCE, small_read) is not None
    (path,) = files(cache)
    target = path.with_name(path.name.replace(SOURCE.hex()[:24], other.hex()[:24]))
    target.write_bytes(path.read_bytes())

    def read() -> tuple[list[bytes], str]:
        table = [*SINGLES, b"bc"]
        return table, vocabulary_digest(table)

    found = cached_vocabulary(other, read)
    assert found is not None
    assert found.encode(b"abc") == [98, 257]


_OPEN = """
import sys
from rwkv_cli.text.world import open_world
tokenizer = open_world()
print(type(tokenizer).__name__, tokenizer.encode("Hello world, 你好".encode()))
"""


def start(cache: Path, **changes: str) -> subprocess.Popen[str]:
    env = os.environ | {"RWKV_CACHE_DIR": str(cache), "RWKV_NATIVE_LIBRARY": str(find().path)}
    command = [sys.executable, "-c", _OPEN]
    return subprocess.Popen(command, env=env | changes, stdout=subprocess.PIPE, text=True)


def test_two_processes_may_fill_the_cache_at_once(cache: Path, plain: WorldTokenizer) -> None:
    expected = f"PackedWorldTokenizer {plain.encode('Hello world, 你好'.encode())}\n"
    for process in [start(cache) for _ in range(3)]:
        assert process.communicate(timeout=60)[0] == expected
        assert process.returncode == 0
    assert len(files(cache)) == 1


def test_without_the_library_python_matches(cache: Path, plain: WorldTokenizer) -> None:
    with start(cache, RWKV_NATIVE_LIBRARY=str(cache / "none.so")) as process:
        found = process.communicate(timeout=60)[0]
    assert found == f"WorldTokenizer {plain.encode('Hello world, 你好'.encode())}\n"
    assert not files(cache)


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: WorldTokenizer
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_bytes(b"no folder")
    monkeypatch.setenv("RWKV_CACHE_DIR", str(blocked))
    tokenizer = open_world()
    assert type(tokenizer) is WorldTokenizer
    assert tokenizer.digest == plain.digest
    assert blocked.read_bytes() == b"no folder"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root"
)
def test_a_read_only_cache_is_done_without(cache: Path, plain: WorldTokenizer) -> None:
    cache.mkdir()
    cache.chmod(0o500)
    tokenizer = open_world()
    assert type(tokenizer) is WorldTokenizer
    assert tokenizer.digest == plain.digest


def test_a_filled_cache_needs_no_writing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_world(), PackedWorldTokenizer)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(native, "write_atomic", never)
    assert isinstance(open_world(), PackedWorldTokenizer)


def test_no_home_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "none")
    monkeypatch.delenv("RWKV_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir("/")
    assert type(open_world()) in (WorldTokenizer, PackedWorldTokenizer)
    assert open_world().encode(b"Hello world") == [33155, 40213]


def test_a_library_that_went_away_is_done_without(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_library, "find", lambda: Found(why="gone"))
    native._functions.cache_clear()
    assert cached_vocabulary(SOURCE, small_read) is None
    monkeypatch.undo()
    native._functions.cache_clear()


def test_a_changed_file_is_another_vocabulary(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "letters.txt"
    lines = [f"{byte + 1} {bytes([byte])!r} 1\n" for byte in range(256)]
    for literal, tokens in (("'ab' 2", [257, 100]), ("'bc' 2", [98, 257])):
        path.write_text("".join([*lines, f"257 {literal}\n"]))
        tokenizer = open_file(path)
        assert isinstance(tokenizer, PackedWorldTokenizer)
        assert tokenizer.name == "letters"
        assert tokenizer.encode(b"abc") == tokens
    assert len(files(cache)) == 2
