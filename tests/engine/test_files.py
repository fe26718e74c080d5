"""Files are written whole or not at all, and nothing but a file is read as one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rwkv_cli.errors import NotFoundError, RefusedError, RwkvError, StorageError
from rwkv_cli.files import make_folder, put_folder, read_regular, remove_leftovers, write_atomic

PARTS = [b"new ", memoryview(b"content")]
NEW, OLD = b"new content", b"old"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def _failing(real: Callable[..., Any], turn: int) -> Callable[..., Any]:
    """A system call that fails the given time it is made."""
    calls = []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == turn:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    return call


def test_content_replaces_content(path: Path) -> None:
    for content in (OLD, NEW):
        write_atomic(path, [content])
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("private", [False, True])
def test_private_files_are_the_owners_alone(path: Path, private: bool) -> None:
    before = os.umask(0o022)
    try:
        write_atomic(path, PARTS, private=private)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == (0o600 if private else 0o644)


def test_link_is_followed_and_stays(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(OLD)
    path.symlink_to(target)
    write_atomic(path, PARTS)
    assert path.is_symlink()
    assert target.read_bytes() == NEW


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _socket(path: Path) -> Path:
    os.mknod(
        path, stat.S_IFSOCK | 0o600
    )  # stands for a device, which a bug must not get to replace
    return path


def _link_to_fifo(path: Path) -> Path:
    path.symlink_to(_fifo(path.with_name("fifo")))
    return path


def _circle(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _in_no_folder(path: Path) -> Path:
    return path / "missing" / "file"


def _below_a_file(path: Path) -> Path:
    path.write_bytes(OLD)
    return path / "file"


def _long_name(path: Path) -> Path:
    return path.with_name("x" * 300)


_NO_FILES = [_fifo, _folder, _link_to_fifo]
_NOWHERE = [_socket, _circle, _in_no_folder, _below_a_file, _long_name]


@pytest.mark.parametrize("make", [*_NO_FILES, *_NOWHERE])
def test_nothing_but_a_file_is_replaced(path: Path, make: Callable[[Path], Path]) -> None:
    place = make(path)
    before = {p: p.lstat().st_mode for p in path.parent.iterdir()}
    with pytest.raises(StorageError, match="cannot write"):
        write_atomic(place, PARTS)
    assert {p: p.lstat().st_mode for p in path.parent.iterdir()} == before


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_names_of_folders_are_refused(name: str) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        write_atomic(Path(name), PARTS)


@pytest.mark.parametrize(("call", "turn"), [("open", 1), ("fsync", 1), ("replace", 1)])
def test_failed_write_leaves_the_old_file(
    path: Path, call: str, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(OLD)
    monkeypatch.setattr(os, call, _failing(getattr(os, call), turn))
    with pytest.raises(StorageError, match="cannot write"):
        write_atomic(path, PARTS)
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["file"]


def test_failure_while_the_content_is_made_leaves_the_old_file(path: Path) -> None:
    def parts() -> Any:
        yield b"half"
        raise KeyboardInterrupt

    path.write_bytes(OLD)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, parts())
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["file"]


def test_folders_that_cannot_be_synced_are_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", sync)
    write_atomic(path, PARTS)
    assert path.read_bytes() == NEW


def test_file_is_read_whole(path: Path) -> None:
    path.write_bytes(NEW)
    assert read_regular(path, len(NEW)) == NEW


def test_file_beyond_the_limit_is_refused(path: Path) -> None:
    path.write_bytes(NEW)
    with pytest.raises(RefusedError, match="larger"):
        read_regular(path, len(NEW) - 1)


@pytest.mark.parametrize("make", _NO_FILES)
def test_what_is_no_file_is_not_read(path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(RefusedError, match=r"regular|folder"):
        read_regular(make(path), 1 << 20)


@pytest.mark.parametrize("make", _NOWHERE)
def test_what_cannot_be_opened_is_said_in_a_sentence(
    path: Path, make: Callable[[Path], Path]
) -> None:
    with pytest.raises(RwkvError, match=str(path.parent)):
        read_regular(make(path), 1 << 20)


def test_missing_file_is_not_found(path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_regular(path, 1)


@pytest.mark.parametrize("turn", [1, 2])
def test_a_folder_that_cannot_be_put_in_place_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    new, path = tmp_path / "new", tmp_path / "folder"
    for folder, content in ((new, NEW), (path, OLD)):
        folder.mkdir()
        (folder / "file").write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", _failing(Path.rename, turn))
        with pytest.raises(StorageError):
            put_folder(new, path)
    assert (path / "file").read_bytes() == OLD
    put_folder(new, path)
    assert (path / "file").read_bytes() == NEW
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_takes_the_place_of_a_file_or_a_link(tmp_path: Path, kind: str) -> None:
    other, new, path = tmp_path / "other", tmp_path / "new", tmp_path / "folder"
    other.write_bytes(OLD)
    new.mkdir()
    if kind == "link":
        path.symlink_to(other)
    else:
        path.write_bytes(OLD)
    put_folder(new, path)
    assert path.is_dir()
    assert not path.is_symlink()
    assert other.read_bytes() == OLD


def test_what_killed_processes_left_goes_after_a_day_folders_too(tmp_path: Path) -> None:
    for name, age in (
        (".a.1-0123456789ab.tmp", 90_000),
        (".b.1-0123456789ab.tmp", 90_000),
        (".c.1-0123456789ab.tmp", 10),
    ):
        (tmp_path / name).mkdir() if name[1] == "b" else (tmp_path / name).write_bytes(OLD)
        now = (tmp_path / name).stat().st_mtime
        os.utime(tmp_path / name, (now - age, now - age))
    remove_leftovers(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_a_folder_is_made_with_those_above_it_or_refused_in_a_sentence(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", private=True)
    make_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(StorageError, match="cannot make") as caught:
        make_folder(tmp_path / "file" / "b", hint="elsewhere")
    assert caught.value.hint == "elsewhere"
