"""An archive that contradicts itself is refused before anything in it is used."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.zip import read_entries
from rwkv_cli.errors import RefusedError
from tests.checkpoints.files import Member, refusal, zip_bytes

ONE = Member("m/data.pkl", b"\x80\x02}.")
TWO = Member("m/data/0", bytes(16))


def test_archives_of_another_writer_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/a", b"one")
        archive.writestr("m/b", b"")
        archive.writestr("m/ü", b"three")
    source = Source(path)
    found = {
        name: bytes(source.view[entry.offset : entry.offset + entry.size])
        for name, entry in read_entries(source).items()
    }
    assert found == {"m/a": b"one", "m/b": b"", "m/ü": b"three"}


def test_the_hand_made_archive_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(zip_bytes([ONE, TWO], gap=b"descriptor"))
    assert list(read_entries(Source(path))) == ["m/data.pkl", "m/data/0"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([Member("m/data.pkl", b"x", flags=1)], "encrypted entry: m/data.pkl"),
        ([Member("m/data.pkl", b"x", flags=0x40)], "ZIP flags 0x0040"),
        ([Member("m/data.pkl", b"x", method=8)], "compressed entry: m/data.pkl"),
        ([Member("m/data.pkl", b"x", method=0xFFFF)], "compressed entry"),
        ([Member("m/data.pkl", b"x", local_name="m/data.pk2")], "does not match the directory"),
        ([Member("m/data.pkl", b"x", local_size=2)], "does not match the directory"),
        ([Member("m/data.pkl", b"x", local_size=0)], "does not match the directory"),
        ([Member("m/data.pkl", b"x", central_size=0)], "does not match the directory"),
        ([ONE, Member("m/data/0", b"x", header=0)], "does not match the directory"),
        ([ONE, Member("m/data/0", b"x", header=2**31)], "a ZIP entry at byte 2147483648"),
        ([ONE, Member("m/data/0", b"x", header=2**32 - 1)], "zip64 size"),
        ([Member("m/data.pkl", b"x", central_size=2**31, local_size=2**31)], "overlap"),
        ([ONE, ONE], "names m/data.pkl twice"),
        ([ONE, Member("n/data/0", b"x")], "not one that torch.save wrote"),
        ([ONE, Member("data/0", b"x")], "not one that torch.save wrote"),
        ([Member("word/document.xml", b"x")], "not one that torch.save wrote"),
        ([Member("m/", b"")], "not one that torch.save wrote"),
        ([ONE, Member("m/../../data/0", b"x")], "never writes: ../../data/0"),
        ([ONE, Member("m/data/0/1", b"x")], "never writes: data/0/1"),
        ([ONE, Member("m/data/¹", b"x")], "never writes"),
        ([ONE, Member("m/\x1b[2J", b"x")], "never writes: \\x1b[2J"),
        ([Member("m/data.pkl", b"x", crc=1)], "the checksum of data.pkl is wrong"),
    ],
)
def test_lies_are_refused(tmp_path: Path, members: list[Member], reason: str) -> None:
    assert reason in refusal(tmp_path / "m.pth", zip_bytes(members))


def test_sizes_after_the_data_are_for_archives_that_announce_them(tmp_path: Path) -> None:
    streamed = Member("m/data.pkl", b"x", flags=8, local_size=0)
    assert "pickle" in refusal(tmp_path / "m.pth", zip_bytes([streamed]))


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    inner = zip_bytes([Member("m/data/0", b"x")])
    outer = Member("m/data.pkl", inner)
    inside = 30 + len("m/data.pkl")
    second = Member("m/data/0", b"x", header=inside)
    content = zip_bytes([outer, second])
    assert "overlap" in refusal(tmp_path / "m.pth", content)


@pytest.mark.parametrize("end", [b"\0", b"PK", b"x" * 70])
def test_bytes_after_the_end_are_refused(tmp_path: Path, end: bytes) -> None:
    content = zip_bytes([ONE], end=end)
    assert "bytes after the end" in refusal(tmp_path / "m.pth", content)


def test_bytes_before_the_first_entry_are_refused(tmp_path: Path) -> None:
    shifted = Member("m/data.pkl", b"PK\3\4", header=30 + len("m/data.pkl"))
    assert refusal(tmp_path / "m.pth", zip_bytes([shifted]))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (0, 1, "several parts"),
        (2, 1, "several parts"),
        (3, 2**16 - 1, "several parts"),
        (4, 2**16 - 1, "wrong size"),
        (4, 0, "wrong size"),
        (5, 1, "wrong size"),
        (5, 2**32 - 1, "wrong size"),
        (6, 2, "bytes after the end"),
    ],
)
def test_a_wrong_end_record_is_refused(tmp_path: Path, field: int, value: int, reason: str) -> None:
    content = bytearray(zip_bytes([ONE, TWO]))
    fields = list(struct.unpack_from("<4H2LH", content, len(content) - 18))
    fields[field] = value
    struct.pack_into("<4H2LH", content, len(content) - 18, *fields)
    assert reason in refusal(tmp_path / "m.pth", bytes(content))


def test_a_million_announced_entries_cost_nothing(tmp_path: Path) -> None:
    content = zip_bytes([ONE])
    directory = content.index(b"PK\1\2")
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**40, 2**40, 56, directory)
    wide += struct.pack("<4sLQL", b"PK\6\7", 0, len(content) - 22, 1)
    path = tmp_path / "m.pth"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[2**16 - 1] * 2, 56, directory, 0)
    assert "wrong size" in refusal(path, content[:-22] + wide + end)


def test_a_wide_entry_is_read(tmp_path: Path) -> None:
    """A size of 2^32 - 1 in the directory means: look into the zip64 field."""
    content = zip_bytes([ONE, TWO])
    at = content.rindex(b"PK\1\2")
    line = bytearray(content[at:-22])
    struct.pack_into("<2L", line, 20, 2**32 - 1, 2**32 - 1)
    struct.pack_into("<H", line, 30, 20)
    line += struct.pack("<2H2Q", 1, 16, 16, 16)
    tail = bytearray(content[-22:])
    struct.pack_into("<L", tail, 12, struct.unpack_from("<L", tail, 12)[0] + 20)
    path = tmp_path / "m.pth"
    path.write_bytes(content[:at] + line + tail)
    assert read_entries(Source(path))["m/data/0"].size == 16
    line[-20:-18] = b"\2\0"
    path.write_bytes(content[:at] + line + tail)
    with pytest.raises(RefusedError, match="zip64 size"):
        read_entries(Source(path))
