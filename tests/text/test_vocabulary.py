"""Laws of reading a World vocabulary."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rwkv_cli.errors import NotFoundError, RefusedError
from rwkv_cli.text import vocabulary
from rwkv_cli.text.vocabulary import read_vocabulary

SINGLE_BYTES = "".join(f"{byte + 1} {bytes([byte])!r} 1\n" for byte in range(256))


def write(folder: Path, text: str) -> Path:
    path = folder / "vocabulary.txt"
    path.write_bytes(text.encode())
    return path


def test_quick_reading_of_the_known_file_equals_python_literals(world_path: Path) -> None:
    table = read_vocabulary(world_path)
    lines = world_path.read_text("utf-8").split("\n")[:-1]
    assert len(table) == len(lines) + 1
    for line in lines:
        token, rest = line.split(" ", 1)
        literal, size = rest.rsplit(" ", 1)
        value = ast.literal_eval(literal)
        expected = value if isinstance(value, bytes) else value.encode()
        assert table[int(token)] == expected
        assert len(expected) == int(size)


def test_checked_reading_equals_quick_reading(
    world_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = read_vocabulary(world_path)
    monkeypatch.setattr(vocabulary, "WORLD_FILE_SHA256", "")
    assert read_vocabulary(world_path) == quick


def test_dos_line_ends_do_not_matter(world_path: Path, tmp_path: Path) -> None:
    path = write(tmp_path, world_path.read_text("utf-8").replace("\n", "\r\n"))
    assert read_vocabulary(path) == read_vocabulary(world_path)


def test_ids_may_leave_gaps(tmp_path: Path) -> None:
    table = read_vocabulary(write(tmp_path, SINGLE_BYTES + "300 'ab' 2\n"))
    assert table[300] == b"ab"
    assert table[257:300] == [b""] * 43


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("'a b'", b"a b"),
        ('"it\'s"', b"it's"),
        (r"'\t\\\''", b"\t\\'"),
        (r"'\x85'", b"\xc2\x85"),
        (r"b'\x85\xff'", b"\x85\xff"),
        (r"'\u3000'", b"\xe3\x80\x80"),
        (r"'雨\n'", "雨\n".encode()),
        ("' 1 2 '", b" 1 2 "),
    ],
)
def test_literals_have_their_python_values(tmp_path: Path, literal: str, value: bytes) -> None:
    path = write(tmp_path, SINGLE_BYTES + f"257 {literal} {len(value)}\n")
    assert read_vocabulary(path)[257] == value


@pytest.mark.parametrize(
    "line",
    [
        "257 'ab' 3",
        "257 '' 0",
        "257 'a 2",
        "257 'a'b' 3",
        "257 __import__('os') 12",
        "257 'a' * 9 9",
        r"257 '\N{BULLET}x' 4",
        r"257 '\ud800' 3",
        r"257 b'\u1234' 2",
        "257 ab",
        "x 'ab' 2",
        "0 'ab' 2",
        "99999999 'ab' 2",
        "256 'ab' 2",
        "257 'a' 1",
    ],
)
def test_lines_that_contradict_themselves_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(RefusedError):
        read_vocabulary(write(tmp_path, SINGLE_BYTES + line + "\n"))


def test_a_vocabulary_that_lacks_a_byte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="0x41"):
        read_vocabulary(write(tmp_path, SINGLE_BYTES.replace("66 b'A' 1\n", "")))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        read_vocabulary(write(tmp_path, ""))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_vocabulary(tmp_path / "none.txt")
