"""All conversations: found, deleted, and none hidden or lost for the sake of another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from store.making import begin, library, load, state, talk, turn

from rwkv_cli.errors import MismatchError, NotFoundError, StorageError, UsageError
from rwkv_cli.store.disk import Disk


def test_names_that_several_conversations_bear_are_listed(tmp_path: Path) -> None:
    for _ in range(2):
        talk(tmp_path).rename("same")
    with pytest.raises(UsageError, match="2 conversations"):
        library(tmp_path).find("same")
    with pytest.raises(NotFoundError):
        library(tmp_path).find("no such words anywhere")


class Locked(Disk):
    """Cannot read one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self, folder: Path) -> list[str]:
        if folder == self.folder:
            raise StorageError(f"cannot read {folder}: permission denied")
        return super().names(folder)


@pytest.mark.parametrize("kind", ["newer", "locked"])
def test_a_conversation_that_cannot_be_read_hides_no_other(tmp_path: Path, kind: str) -> None:
    good, bad = talk(tmp_path), talk(tmp_path)
    good.rename("good")
    bad.rename("bad")
    disk = Locked(bad.folder if kind == "locked" else tmp_path)
    if kind == "newer":
        line = b'{"kind": "turn", "format": 2}'
        record = line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"
        (bad.folder / "00000009-00000009.turn").write_bytes(record)
    warnings: list[str] = []
    whole = library(tmp_path, disk, warnings=warnings)
    assert [log.id for log in whole.recent()] == [good.id]
    assert len(warnings) == 1
    assert str(bad.folder) in warnings[0]
    assert whole.find("GOOD").id == good.id
    for read in (lambda: whole.open(bad.id), whole.latest):
        with pytest.raises((MismatchError, StorageError)):
            read()


def test_a_deleted_conversation_is_gone(tmp_path: Path) -> None:
    log, other = talk(tmp_path), talk(tmp_path)
    library(tmp_path).remove(log.id)
    assert not log.folder.exists()
    assert library(tmp_path).ids() == [other.id]
    with pytest.raises(NotFoundError):
        library(tmp_path).remove(log.id)


def test_a_folder_in_the_place_of_a_state_is_deleted_too(tmp_path: Path) -> None:
    log = talk(tmp_path, 1)
    (held,) = log.folder.glob("*.rwkvstate")
    held.unlink()
    (held / "deep").mkdir(parents=True)
    (held / "deep" / "file").write_bytes(b"x")
    library(tmp_path).remove(log.id)
    assert not log.folder.exists()


def test_folders_do_not_pile_up_in_quarantine(tmp_path: Path) -> None:
    log = talk(tmp_path, 1)
    for number in range(20):
        (log.folder / f"{number + 10:08}-{number:08x}.move" / "deep").mkdir(parents=True)
    library(tmp_path).open(log.id)
    assert len(list((tmp_path / "chats" / "quarantine").iterdir())) == 16


@pytest.mark.parametrize("gone", ["conversation", "beginning"])
@pytest.mark.parametrize("based", [True, False])
def test_a_conversation_that_is_deleted_while_it_goes_on_is_written_again(
    tmp_path: Path, gone: str, *, based: bool
) -> None:
    log = library(tmp_path).new()
    log.plan(begin(log.id, based=based), state([7]) if based else None)
    first = turn()
    log.add(first)
    log.tag("here", first.id)
    log.rename("trip")
    for number in range(2):
        if gone == "conversation":
            library(tmp_path).remove(log.id)
        else:
            (log.folder / next(p for p in log.folder.iterdir() if p.suffix == ".begin")).unlink()
        if number:
            log.draft(turn(log.tree.head, 9))
            assert library(tmp_path).open(log.id).tree == log.tree
        log.add(turn(first.id, number))
        log.save_state(log.tree.head, "end", state([7] * based + [*log.tree.tokens()]))
        again = library(tmp_path).open(log.id)
        assert (again.tree, log.unsaved) == (log.tree, 0)
        assert again.load_state(again.tree.head, "end", load) is not None
        kept = again.base(load)
        assert (kept is not None and list(kept.tokens) == [7]) == based


def test_a_conversation_that_went_on_from_the_disk_is_written_again(tmp_path: Path) -> None:
    made = library(tmp_path).new()
    made.plan(begin(made.id, based=True), state([7]))
    made.add(turn())
    log = library(tmp_path).open(made.id)
    log.base(load)
    library(tmp_path).remove(made.id)
    log.add(turn(log.tree.head, 1))
    again = library(tmp_path).open(log.id)
    assert again.tree == log.tree
    assert again.base(load) is not None


def test_two_who_go_on_with_a_deleted_conversation_lose_no_turn(tmp_path: Path) -> None:
    one = talk(tmp_path)
    other = library(tmp_path).open(one.id)
    library(tmp_path).remove(one.id)
    said = set(one.tree.turns)
    for seed in range(2):
        for number, log in enumerate((one, other)):
            log.add(turn(log.tree.head, 10 * seed + number))
            said.add(log.tree.head)
    warnings: list[str] = []
    assert set(library(tmp_path, warnings=warnings).open(one.id).tree.turns) == said
    assert warnings == []
