"""Bytes are counted for files, folders and disks, and written in few characters."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from rwkv_cli import sizes
from rwkv_cli.errors import StorageError
from rwkv_cli.sizes import amount, free_bytes, require_room, size_of, standing


@pytest.mark.parametrize(
    ("count", "text", "fine"),
    [
        (0, "0 B", "0 B"),
        (96.4, "96 B", "96 B"),
        (1500, "2 kB", "2 kB"),
        (1_250_000, "1.2 MB", "1.25 MB"),
        (12_400_000, "12 MB", "12.4 MB"),
        (3_055_444_605, "3.1 GB", "3.06 GB"),
        (123_400_000_000, "123 GB", "123.4 GB"),
    ],
)
def test_amounts_are_short(count: int, text: str, fine: str) -> None:
    assert (amount(count), amount(count, fine=True)) == (text, fine)


def test_a_folder_is_as_large_as_its_files_and_nothing_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"345")
    (tmp_path / "inner").mkdir()
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path / "a") == 2
    assert size_of(tmp_path / "none") == 0


def test_what_is_not_there_yet_has_the_room_of_the_folder_above_it(tmp_path: Path) -> None:
    assert standing(tmp_path / "new" / "deep") == tmp_path
    free, above = free_bytes(tmp_path / "new" / "deep"), free_bytes(tmp_path)
    assert free is not None
    assert above is not None
    assert abs(free - above) < 1 << 30


def test_too_little_room_is_told_in_numbers_and_no_answer_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda _: usage(100, 0, 100_000_000))
    require_room(tmp_path, 60_000_000, spare=40_000_000)
    with pytest.raises(StorageError, match="needs 61 MB, and 100 MB are free in"):
        require_room(tmp_path, 61_000_000, spare=40_000_000)

    def silent(_: Path) -> None:
        raise OSError

    monkeypatch.setattr(sizes.shutil, "disk_usage", silent)
    require_room(tmp_path, 1 << 60)
