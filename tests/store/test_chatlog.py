"""What is kept comes back; what is damaged costs time, never a turn; what is full is said."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.making import IDENTITY, begin, library, load, state, talk, turn

from rwkv_cli.errors import MismatchError, RefusedError, StorageError
from rwkv_cli.store.budget import INNER, LATEST, PREFIX, Budget
from rwkv_cli.store.disk import Disk
from rwkv_cli.store.records import Begin, Move, Name, Tag, check_identity, from_bytes, to_bytes
from rwkv_cli.tree import Turn

texts = st.text(st.characters(codec=None), max_size=20)  # lone surrogates too, as argv gives them
tokens = st.lists(st.integers(0, 2**32 - 1), max_size=20).map(tuple)
turns = st.builds(Turn, texts, texts, texts, texts, tokens, tokens, texts, texts, texts)


@given(turns | st.builds(Move, texts) | st.builds(Name, texts) | st.builds(Tag, texts, texts))
def test_any_record_comes_back(record: Turn | Move | Name | Tag) -> None:
    assert from_bytes(to_bytes(record), "x") == record


@settings(max_examples=30)
@given(texts, st.lists(turns, max_size=3).map(tuple))
def test_any_beginning_comes_back(text: str, said: tuple[Turn, ...]) -> None:
    record = Begin(text, text, text, IDENTITY, text, text, text, True, text, said)
    assert from_bytes(to_bytes(record), "x") == record


@settings(max_examples=200)
@given(turns, st.data())
def test_no_changed_record_is_believed(record: Turn, data: st.DataObject) -> None:
    whole = to_bytes(record)
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RefusedError):
        from_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :], "x")
    with pytest.raises(RefusedError):
        from_bytes(whole[:at], "x")


def test_a_newer_record_is_not_misread() -> None:
    line = b'{"kind": "turn", "format": 2}'
    with pytest.raises(MismatchError, match="format 2"):
        from_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n", "x")


def test_a_conversation_comes_back(tmp_path: Path) -> None:
    log = talk(tmp_path)
    log.rename("trip")
    log.tag("here", log.tree.head)
    log.move(next(iter(log.tree.turns)))
    again = library(tmp_path).open(log.id)
    assert (again.tree, again.begin) == (log.tree, log.begin)
    for found in (again.id[:4], "TRIP", again.tree.path()[-1].user.split()[0]):
        assert library(tmp_path).find(found).id == log.id


def test_two_in_one_conversation_make_two_branches(tmp_path: Path) -> None:
    one = talk(tmp_path)
    other = library(tmp_path).open(one.id)
    mine, theirs = turn(one.tree.head, 7), turn(one.tree.head, 8)
    one.add(mine)
    other.add(theirs)
    one.refresh()
    assert one.tree.head == mine.id
    assert {mine.id, theirs.id} <= set(one.tree.turns)
    assert len(one.tree.siblings(mine.id)) == 2
    assert library(tmp_path).open(one.id).tree.turns == one.tree.turns


def test_nothing_is_on_the_disk_before_the_first_turn(tmp_path: Path) -> None:
    log = library(tmp_path).new()
    log.plan(begin(log.id))
    assert list(tmp_path.iterdir()) == []
    assert library(tmp_path).recent() == []


def test_everything_is_for_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        log = talk(tmp_path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in log.folder.iterdir()} == {0o600}


# Damage


def test_a_damaged_state_is_set_aside_and_missed(tmp_path: Path) -> None:
    log = talk(tmp_path)
    last = log.tree.head
    (held,) = log.folder.glob(f"*-{last}.end.rwkvstate")
    held.write_bytes(held.read_bytes()[:-40])
    warnings: list[str] = []
    again = library(tmp_path, warnings=warnings).open(log.id)
    assert again.load_state(last, "end", load) is None
    assert "made again" in warnings[0]
    assert (last, "end") not in again.held()
    assert len(list((tmp_path / "chats" / "quarantine").iterdir())) == 1
    assert again.load_state(again.tree.turns[last].parent, "end", load) is not None


def test_a_state_of_another_text_is_not_used(tmp_path: Path) -> None:
    log = talk(tmp_path, 1, states=False)
    log.save_state(log.tree.head, "end", state([1, 2, 3]))
    assert log.load_state(log.tree.head, "end", load) is None


def test_a_damaged_record_costs_what_follows_it_alone(tmp_path: Path) -> None:
    log = talk(tmp_path)
    first, second, third = log.tree.turns
    (path,) = log.folder.glob(f"*-{second}.turn")
    path.write_bytes(b"\0" * path.stat().st_size)
    warnings: list[str] = []
    again = library(tmp_path, warnings=warnings).open(log.id)
    assert list(again.tree.turns) == [first]
    assert any("set aside" in text for text in warnings)
    assert any("1 later turns" in text for text in warnings)
    assert list(log.folder.glob(f"*-{third}.turn"))


def test_the_newest_sixteen_damaged_files_are_kept(tmp_path: Path) -> None:
    log = talk(tmp_path, 1)
    for number in range(20):
        (log.folder / f"{number + 10:08}-{number:08x}.move").write_bytes(b"x")
    library(tmp_path).open(log.id)
    names = sorted(p.name for p in (tmp_path / "chats" / "quarantine").iterdir())
    assert len(names) == 16
    assert names[-1].endswith(f"-{19:08x}.move")


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "device", "large"])
def test_what_is_no_file_of_ours_is_never_followed(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = talk(tmp_path, 2)
    odd = log.folder / "00000050-00000001.turn"
    if kind == "folder":
        odd.mkdir()
    elif kind == "fifo":
        os.mkfifo(odd)
    elif kind == "link":
        odd.symlink_to("/etc/hostname")
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    else:
        odd.write_bytes(b"x" * 2000)
        monkeypatch.setattr("rwkv_cli.store.chatlog.LIMIT", 1500)
    again = library(tmp_path).open(log.id)
    assert again.tree.turns == log.tree.turns


def test_an_unfinished_answer_becomes_a_turn(tmp_path: Path) -> None:
    log = talk(tmp_path)
    half = turn(log.tree.head, 9)
    log.draft(half)
    again = library(tmp_path).open(log.id)
    assert again.drafts() == [half]
    assert again.recover() == []  # it is being written
    log.leave()
    (found,) = again.recover()
    assert (found.user, found.reply) == (half.user, half.reply)
    assert again.tree.head == found.id != half.id
    assert not list(log.folder.glob("*.draft"))
    log.add(half)  # whoever wrote it was alive after all
    assert {half.id, found.id} <= set(library(tmp_path).open(log.id).tree.turns)


def test_a_model_is_compared_before_its_states_are(tmp_path: Path) -> None:
    from dataclasses import replace

    log = talk(tmp_path)
    assert log.begin is not None
    check_identity(log.begin, replace(IDENTITY, numerics="other"))
    for part in ("arch", "weights", "tokenizer"):
        with pytest.raises(MismatchError, match="another model"):
            check_identity(log.begin, replace(IDENTITY, **{part: "other"}))


# Disks that refuse


class Failing(Disk):
    """Refuses from the n-th step on, once or for ever."""

    STEPS = ("mkdir", "create", "reserve", "write", "sync", "link", "unlink", "sync_folder")

    def __init__(self, number: int, code: int, *, once: bool) -> None:
        self.left, self.code, self.once = number, code, once


def _failing(name: str) -> object:
    def step(self: Failing, *arguments: object) -> object:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and not self.once):
            raise OSError(self.code, os.strerror(self.code))
        return getattr(Disk, name)(self, *arguments)

    return step


for _name in Failing.STEPS:
    setattr(Failing, _name, _failing(_name))


@pytest.mark.parametrize("once", [True, False], ids=["once", "from then on"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_a_disk_that_refuses_costs_no_turn(tmp_path: Path, code: int, *, once: bool) -> None:
    for number in range(1, 60):
        root = tmp_path / str(number)
        root.mkdir()
        disk = Failing(number, code, once=once)
        log = library(root, disk).new()
        log.plan(begin(log.id, turns=(turn(seed=99),)))
        kept: list[Turn] = []
        for seed in range(3):
            step = turn(log.tree.head, seed)
            try:
                log.add(step)
                kept = list(log.tree.path())
                log.save_state(step.id, "end", state(log.tree.tokens()))
            except StorageError as error:
                assert str(root) in error.message
        assert len(log.tree.path()) == 4  # all of them are in memory
        found = library(root).recent()
        there = found[0].tree.turns if found else {}
        assert all(there.get(step.id) == step for step in kept)
        disk.left, disk.once = 10**9, True  # there is room again
        log.add(turn(log.tree.head, 8))
        warnings: list[str] = []
        assert library(root, warnings=warnings).open(log.id).tree.turns == log.tree.turns
        assert warnings == []
        assert log.unsaved == 0


def test_an_unfinished_answer_is_not_lost_to_a_full_disk(tmp_path: Path) -> None:
    log = talk(tmp_path)
    half = turn(log.tree.head, 9)
    log.draft(half)
    log.leave()
    disk = Failing(1, errno.ENOSPC, once=False)
    again = library(tmp_path, disk).open(log.id)
    (found,) = again.recover()
    assert (again.tree.head, again.unsaved) == (found.id, 1)
    assert library(tmp_path).open(log.id).drafts() == [half]
    disk.left = 10**9
    again.add(turn(found.id, 8))
    assert library(tmp_path).open(log.id).tree.turns == again.tree.turns
    assert not list(log.folder.glob("*.draft"))


def test_a_full_disk_is_not_filled_with_empty_files(tmp_path: Path) -> None:
    class Full(Disk):
        def reserve(self, handle: int, size: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="no space"):
        Full().publish(tmp_path / "x", [b"content"])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_fsync_is_not_tried_again_on_the_same_file(tmp_path: Path) -> None:
    handles: list[int] = []
    written: list[tuple[int, int]] = []

    class Once(Disk):
        def sync(self, handle: int) -> None:
            handles.append(os.fstat(handle).st_ino)
            if len(handles) == 1:
                raise OSError(errno.EIO, "lost")
            super().sync(handle)

        def write(self, handle: int, data: memoryview) -> int:
            written.append((os.fstat(handle).st_ino, len(data)))
            return super().write(handle, data)

    assert Once().publish(tmp_path / "x", [b"content"])
    assert len(handles) == 2
    assert [size for _, size in written] == [7, 7]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_system_without_links_or_locks_will_do(tmp_path: Path) -> None:
    class Poor(Disk):
        def link(self, source: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "no links here")

    disk = Poor()
    assert disk.publish(tmp_path / "x", [b"one"])
    assert not disk.publish(tmp_path / "x", [b"two"])
    assert (tmp_path / "x").read_bytes() == b"one"
    log = talk(tmp_path, disk=disk)
    assert library(tmp_path).open(log.id).tree == log.tree


def test_a_temporary_file_that_vanishes_is_written_again(tmp_path: Path) -> None:
    class Swept(Disk):
        count = 0

        def link(self, source: Path, target: Path) -> None:
            self.count += 1
            if self.count == 1:
                source.unlink()
            super().link(source, target)

    assert Swept().publish(tmp_path / "x", [b"content"])
    assert (tmp_path / "x").read_bytes() == b"content"


# Room


def test_states_go_in_order_and_records_never(tmp_path: Path) -> None:
    logs = [talk(tmp_path, 3) for _ in range(2)]
    place = tmp_path / "prefix" / "ab"
    place.mkdir(parents=True)
    (place / "x.rwkvstate").write_bytes(b"1" * 1000)
    budget = Budget(tmp_path / "chats", tmp_path / "prefix", limit=0)
    rows = budget.held()
    assert [row.kind for row in rows] == [PREFIX, *[INNER] * 4, *[LATEST] * 2]
    total = sum(row.nbytes for row in rows)
    some = Budget(tmp_path / "chats", tmp_path / "prefix", limit=total - 1001)
    assert some.make_room()
    assert [row.path.exists() for row in rows] == [False, False, *[True] * 5]
    assert budget.make_room()
    assert not any(row.path.exists() for row in rows)
    for log in logs:
        assert library(tmp_path).open(log.id).tree == log.tree


def test_a_state_that_has_no_room_is_not_kept(tmp_path: Path) -> None:
    log = talk(tmp_path, 1, states=False)
    tight = library(tmp_path, limit=100).open(log.id)
    assert not tight.save_state(tight.tree.head, "end", state(tight.tree.tokens()))
    assert tight.held() == {}


def test_a_copy_has_the_turns_and_the_states(tmp_path: Path) -> None:
    log = talk(tmp_path)
    copy = library(tmp_path).new()
    turns_there = tuple(log.tree.path()[:2])
    copy.plan(begin(copy.id, turns=turns_there, forked=f"{log.id}@2"))
    copy.save()
    copy.adopt(log)
    library(tmp_path).remove(log.id)
    again = library(tmp_path).open(copy.id)
    assert tuple(again.tree.path()) == turns_there
    assert again.load_state(again.tree.head, "end", load) is not None
