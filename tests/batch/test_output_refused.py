"""Files that an output does not go on with, and ends that it cuts off."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path

import pytest
from batch.outputs import ROWS, add, expected, facts, finish, line, mixed

from rwkv_cli.batch.manifest import manifest_path, save
from rwkv_cli.batch.output import Output
from rwkv_cli.errors import MismatchError, NotFoundError, RefusedError, StorageError, UsageError


@pytest.fixture(autouse=True)
def nothing_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are opened hundreds of times here; what is synced when has tests of its own."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_a_torn_last_line_is_cut_wherever_it_is_torn(path: Path) -> None:
    rows = 5
    whole = b"".join(map(line, (2, 0, 3)))
    last = line(4)
    save(manifest_path(path), facts(rows, seed=1))
    for size in range(len(last)):
        path.write_bytes(whole + last[:size])
        notes: list[str] = []
        with Output(path, facts(rows), note=notes.append) as output:
            assert [i for i in range(rows) if i in output.done] == [0, 2, 3]
            assert len(notes) == (size > 0)
            add(output, [4])
        assert path.read_bytes() == whole + last


def test_zeros_that_a_power_failure_left_are_cut(path: Path) -> None:
    whole = b"".join(map(line, (2, 0, 3)))
    hole = line(4)[:30] + bytes(40) + b"}\n"
    save(manifest_path(path), facts(ROWS, seed=1))
    for left in (bytes(9), hole, hole + line(5), bytes(100) + line(5) + line(6)[:9]):
        path.write_bytes(whole + left)
        with Output(path, facts(ROWS)) as output:
            assert len(output.done) == 3
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "foreign", [b"\n", b"hello\n", b'{"index":-1}\n', b'{"index":01}\n', b'{"index":40,"a":1}\n']
)
def test_a_line_that_is_no_row_of_the_run_is_refused_by_its_number(
    path: Path, foreign: bytes
) -> None:
    save(manifest_path(path), facts(ROWS, seed=1))
    path.write_bytes(line(0) + line(1) + foreign + line(2))
    with pytest.raises(RefusedError, match="line 3 is no row"):
        Output(path, facts(ROWS))
    assert path.read_bytes() == line(0) + line(1) + foreign + line(2)
    path.write_bytes(line(0) + line(1) + line(0))
    with pytest.raises(RefusedError, match="row 0 is there twice"):
        Output(path, facts(ROWS))


def test_an_output_without_a_manifest_is_somebody_elses(path: Path) -> None:
    path.write_bytes(line(0))
    for restart in (False, True):
        with pytest.raises(RefusedError, match=r"without out\.jsonl\.run\.json"):
            Output(path, facts(ROWS), restart=restart)
    assert path.read_bytes() == line(0)
    path.write_bytes(b"")
    finish(path)
    assert path.read_bytes() == expected(ROWS)


def test_a_damaged_or_newer_manifest_is_refused(path: Path) -> None:
    finish(path)
    beside = manifest_path(path)
    good = beside.read_bytes()
    for place in range(0, len(good) - 1, 11):
        beside.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises((RefusedError, MismatchError)):
            Output(path, facts(ROWS))
        beside.write_bytes(good[:place])
        with pytest.raises(RefusedError):
            Output(path, facts(ROWS))
    beside.write_bytes(good.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(MismatchError, match="newer version"):
        Output(path, facts(ROWS))
    assert path.read_bytes() == expected(ROWS)
    beside.write_bytes(b"{}")
    assert len(Output(path, facts(ROWS), restart=True).done) == 0


def test_places_that_cannot_be_written_are_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        Output(tmp_path / "none" / "out.jsonl", facts(1))
    for special in (tmp_path, Path(os.devnull)):
        with pytest.raises((StorageError, UsageError)):
            Output(special, facts(1))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(UsageError, match="no regular file"):
        Output(fifo, facts(1))
    if sys.platform == "linux":
        with pytest.raises(StorageError):
            Output(Path("/proc/out.jsonl"), facts(1))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes have no names there")
def test_what_is_no_regular_file_is_refused_before_anything_is_written_beside_it(
    tmp_path: Path,
) -> None:
    reader, writer = os.pipe()
    os.mkfifo(tmp_path / "fifo")
    for special in (tmp_path / "fifo", Path(f"/dev/fd/{writer}"), tmp_path):
        for apart in (None, tmp_path / "bad.jsonl"):
            with pytest.raises(UsageError, match="only a regular file can be gone on with"):
                Output(special, facts(1), errors=apart)
    os.close(reader)
    os.close(writer)
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]


def test_two_writers_are_refused_at_once(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    with Output(path, facts(ROWS), errors=tmp_path / "bad.jsonl") as output:
        for other in (path, link):
            with pytest.raises(StorageError, match="another run is writing"):
                Output(other, facts(ROWS), errors=tmp_path / "bad.jsonl")
        with pytest.raises(StorageError, match=r"another run is writing .*bad\.jsonl"):
            Output(tmp_path / "third.jsonl", facts(ROWS), errors=tmp_path / "bad.jsonl")
        add(output, mixed())
        output.finish()
        with pytest.raises(StorageError, match="another run is writing"):
            Output(path, facts(ROWS))
    with Output(link, facts(ROWS), errors=tmp_path / "bad.jsonl") as output:
        assert output.complete


def test_where_there_are_no_locks_the_user_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", nothing)
    notes: list[str] = []
    with Output(path, facts(ROWS), note=notes.append):
        pass
    assert len(notes) == 1
    assert "has no locks" in notes[0]


def test_a_folder_of_a_full_or_read_only_disk_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open
    for number in (errno.EROFS, errno.ENOSPC, errno.EACCES):

        def refused(name: object, flags: int, mode: int = 0o777, number: int = number) -> int:
            if flags & os.O_CREAT:
                raise OSError(number, os.strerror(number))
            return real(name, flags, mode)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(StorageError, match="cannot write") as info:
            Output(path, facts(ROWS))
        assert os.strerror(number).lower() in info.value.message
        assert list(path.parent.iterdir()) == []
