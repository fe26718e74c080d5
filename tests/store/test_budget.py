"""States stay within their room, and keeping them there does not cost a look at all for each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store.making import begin, library, state, turn

from rwkv_cli.store.budget import Budget


def room(folder: Path, limit: int) -> Budget:
    (folder / "chats").mkdir(exist_ok=True)
    return Budget(folder / "chats", folder / "prefix", limit=limit)


def write(folder: Path, number: int, size: int) -> Path:
    path = folder / "chats" / f"{number % 3:08x}" / f"{number:08}-{number:08x}.end.rwkvstate"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (number, number))
    return path


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.rwkvstate"))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 400), max_size=40), st.integers(0, 1500))
def test_one_program_never_takes_more_than_its_room(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("room")
    budget = room(folder, limit)
    for number, size in enumerate(sizes):
        if budget.make_room(size):
            write(folder, number, size)
        else:
            assert size > limit
        assert taken(folder) <= limit


def test_most_states_are_kept_without_a_look_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    held = Budget.held
    monkeypatch.setattr(Budget, "held", lambda self: (looks.append(1), held(self))[1])
    budget = room(tmp_path, 100_000)
    for number in range(1000):
        assert budget.make_room(1000)
        write(tmp_path, number, 1000)
    assert len(looks) < 400
    assert taken(tmp_path) > 80_000  # and no more goes than has to


def test_what_another_program_took_is_seen_in_the_long_run(tmp_path: Path) -> None:
    ours, theirs = room(tmp_path, 10_000), room(tmp_path, 10_000)
    for number in range(0, 200, 2):
        for budget, place in ((ours, number), (theirs, number + 1)):
            assert budget.make_room(500)
            write(tmp_path, place, 500)
    assert taken(tmp_path) <= 15_000
    assert room(tmp_path, 10_000).make_room()
    assert taken(tmp_path) <= 10_000


def test_the_latest_conversation_is_the_one_that_was_added_to_last(tmp_path: Path) -> None:
    logs = []
    for number in range(6):
        log = library(tmp_path).new()
        log.plan(begin(log.id))
        log.add(turn(seed=number))
        log.save_state(log.tree.head, "end", state(log.tree.tokens()))
        logs.append(log)
        for path in [*log.folder.iterdir(), log.folder]:
            os.utime(path, (1000 + 10 * number, 1000 + 10 * number))
    assert [log.id for log in library(tmp_path).recent()] == [log.id for log in reversed(logs)]
    (logs[0].folder / "x").write_bytes(b"")  # a newer change that is no record
    assert library(tmp_path).latest().id == logs[-1].id
    logs[2].move("")
    assert library(tmp_path).latest().id == logs[2].id
    assert [log.id for log in library(tmp_path).recent(3)] == [logs[i].id for i in (2, 5, 4)]
