"""The journal of a part tells of durable bytes alone; one that makes no sense, of nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rwkv_cli.errors import StorageError
from rwkv_cli.hub import part as module
from rwkv_cli.hub.part import Part, progress_of
from rwkv_cli.hub.sharing import alone

OF = {"of": "a file"}


def opened(folder: Path, size: int = 100, of: dict[str, str] = OF) -> Part:
    part = Part(folder / "x.part", of)
    part.open(size)
    return part


def journalled(part: Part) -> list[list[int]]:
    done: list[list[int]] = json.loads(part.journal.read_text())["done"]
    return done


def test_the_journal_is_written_after_the_flush_and_tells_of_what_was_there_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    part = opened(tmp_path)
    write_atomic = module.write_atomic

    def flush(handle: int) -> None:
        events.append("flush")
        part.write(50, b"late" * 5)  # another thread goes on while the disk works

    def journal(path: Path, content: list[bytes]) -> None:
        events.append("journal")
        write_atomic(path, content)

    monkeypatch.setattr(os, "fdatasync", flush)
    monkeypatch.setattr(module, "write_atomic", journal)
    part.write(0, b"early")
    part.save()
    assert events == ["flush", "journal"]
    assert journalled(part) == [[0, 5]]
    part.save()
    assert journalled(part) == [[0, 5], [50, 70]]
    part.close()


def test_what_was_written_and_not_saved_is_missing_the_next_time(tmp_path: Path) -> None:
    part = opened(tmp_path)
    part.write(10, b"saved")
    part.save()
    part.write(40, b"not saved")
    part.close()
    again = opened(tmp_path)
    assert again.gaps() == [(0, 10), (15, 100)]
    assert again.read(10, 5) == b"saved"
    again.close()


def test_a_part_of_something_else_counts_for_nothing(tmp_path: Path) -> None:
    part = opened(tmp_path)
    part.write(0, b"x" * 100)
    part.save()
    part.close()
    other = opened(tmp_path, of={"of": "another file"})
    assert other.other
    assert other.gaps() == [(0, 100)]
    assert other.read(0, 5) == b"\0" * 5
    other.close()


def test_a_part_that_was_cut_off_has_what_is_left_of_it(tmp_path: Path) -> None:
    part = opened(tmp_path)
    part.write(0, b"x" * 100)
    part.save()
    part.close()
    os.truncate(part.path, 30)
    again = opened(tmp_path)
    assert again.gaps() == [(30, 100)]
    again.close()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "7", '{"format": 2}', '{"format": 1}', "\x00" * 50,
        '{"format": 1, "of": "a file", "done": 7}',
        '{"format": 1, "of": "a file", "done": [[-5, 10], [5, 1], [true, 9], ["a", 2], [1], null]}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_a_journal_that_makes_no_sense_tells_of_nothing(tmp_path: Path, text: str) -> None:
    part = opened(tmp_path)
    part.close()
    part.journal.write_text(text)
    assert progress_of(part.journal)[0] == 0
    again = opened(tmp_path)
    assert again.gaps() == [(0, 100)]
    again.close()


def test_a_journal_cannot_tell_of_bytes_beyond_the_file(tmp_path: Path) -> None:
    part = opened(tmp_path)
    part.close()
    part.journal.write_text('{"format": 1, "of": "a file", "done": [[90, 99999999999]]}')
    again = opened(tmp_path)
    assert (again.done, again.gaps()) == (10, [(0, 90)])
    again.close()


def test_a_link_in_the_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    part = Part(tmp_path / "x.part", OF)
    part.journal.write_text('{"format": 1, "of": "a file", "done": [[0, 4]]}')
    part.path.symlink_to(victim)
    with pytest.raises(StorageError):
        part.open(100)
    assert victim.read_text() == "mine"


def test_a_lock_is_free_again_when_its_file_was_deleted(tmp_path: Path) -> None:
    waits: list[int] = []
    for _ in range(2):
        with alone(tmp_path / "x.lock", lambda: waits.append(1)):
            assert (tmp_path / "x.lock").exists()
    assert (waits, list(tmp_path.iterdir())) == ([], [])
