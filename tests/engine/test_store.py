"""Conversations on disk: a committed turn is never lost, overwritten or mixed with another's."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from oracle.models import TINY, load, save_pth
from oracle.weights import random_model

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import Attachments, State
from rwkv_cli.errors import MismatchError, NotFoundError, StorageError
from rwkv_cli.store import Chat, latest_chat, make_private, model_of, new_chat


def _state(model: Model, *tokens: int) -> State:
    return model.prefill(list(tokens))[1]


def _names(chat: Chat) -> list[str]:
    return sorted(path.name for path in chat.folder.iterdir())


def _newest(model: Model, chat: Chat) -> list[int]:
    return list(Chat(chat.folder).newest(model.load_state, _no_warning).tokens)


def _no_warning(text: str) -> None:
    raise AssertionError(text)


@pytest.fixture
def chat(tmp_path: Path) -> Chat:
    return new_chat(tmp_path / "chats")


def test_newest_commit_is_what_is_loaded(model: Model, chat: Chat) -> None:
    for last in range(1, 6):
        assert chat.commit(_state(model, *range(1, last + 1)))
        assert chat.number == last
        assert _newest(model, chat) == list(range(1, last + 1))


def test_last_three_commits_are_kept(model: Model, chat: Chat) -> None:
    for last in range(1, 6):
        chat.commit(_state(model, last))
    assert _names(chat) == [f"{number:06}.rwkvstate" for number in (3, 4, 5)]


def test_numbers_go_on_past_six_digits(model: Model, chat: Chat) -> None:
    chat.number = 999_998
    for last in (1, 2, 3):
        chat.commit(_state(model, last))
    assert [path.stem for path in chat.files()] == ["1000001", "1000000", "999999"]
    assert _newest(model, chat) == [3]


def test_only_their_owner_can_read_conversations(model: Model, chat: Chat) -> None:
    before = os.umask(0)
    try:
        chat.commit(_state(model, 1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(chat.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(chat.files()[0].stat().st_mode) == 0o600


def test_two_commits_of_one_number_end_in_two_conversations(model: Model, chat: Chat) -> None:
    chat.commit(_state(model, 1))
    first, second = Chat(chat.folder, 1), Chat(chat.folder, 1)
    assert first.commit(_state(model, 1, 2))
    assert not second.commit(_state(model, 1, 3))
    assert second.folder != first.folder
    assert second.folder.parent == first.folder.parent
    assert (first.number, second.number) == (2, 1)
    assert (_newest(model, first), _newest(model, second)) == ([1, 2], [1, 3])
    assert first.commit(_state(model, 1, 2, 4))
    assert second.commit(_state(model, 1, 3, 5))
    assert (_newest(model, first), _newest(model, second)) == ([1, 2, 4], [1, 3, 5])


def test_of_many_at_once_one_goes_on_and_none_is_lost(model: Model, chat: Chat) -> None:
    chat.commit(_state(model, 1))
    chats = [Chat(chat.folder, 1) for _ in range(8)]
    states = [_state(model, 1, 10 + row) for row in range(8)]
    outcomes: list[bool] = []
    threads = [
        threading.Thread(target=lambda c=c, s=s: outcomes.append(c.commit(s)))
        for c, s in zip(chats, states, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False] * 7 + [True]
    assert [_newest(model, c) for c in chats] == [[1, 10 + row] for row in range(8)]


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_cut_short, _flip, _empty, _folder])
def test_damaged_newest_state_falls_back_to_the_one_before(
    model: Model, chat: Chat, damage: Callable[[Path], None]
) -> None:
    for last in (1, 2, 3):
        chat.commit(_state(model, last))
    damage(chat.files()[0])
    warnings: list[str] = []
    again = Chat(chat.folder)
    assert list(again.newest(model.load_state, warnings.append).tokens) == [2]
    assert len(warnings) == 1
    assert str(chat.folder / "000003") in warnings[0]
    assert "000003.damaged" in _names(chat)  # set aside, not deleted
    assert again.commit(_state(model, 2, 4))
    assert again.number == 3
    assert _newest(model, chat) == [2, 4]


def test_conversation_of_damaged_states_alone_is_not_found(model: Model, chat: Chat) -> None:
    for last in (1, 2):
        chat.commit(_state(model, last))
    for path in chat.files():
        _cut_short(path)
    with pytest.raises(NotFoundError, match=chat.name):
        chat.newest(model.load_state, lambda text: None)


def test_state_of_another_model_is_not_taken_for_damaged(
    model: Model, chat: Chat, tmp_path: Path, engine: str
) -> None:
    chat.commit(_state(model, 1))
    path = save_pth(random_model("v7", TINY, seed=9), tmp_path / "other.pth")
    other = load(path, engine=engine)
    with pytest.raises(MismatchError):
        chat.newest(other.load_state, _no_warning)
    assert _newest(model, chat) == [1]


@pytest.mark.parametrize("failing", [1, 2])
def test_full_disk_loses_no_commit_and_the_next_one_succeeds(
    model: Model, chat: Chat, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.commit(_state(model, 1))
    calls: list[int] = []

    def sync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(StorageError, match="no space"):
        chat.commit(_state(model, 1, 2))
    assert _names(chat) == ["000001.rwkvstate"]
    assert chat.number == 1
    assert chat.commit(_state(model, 1, 2))
    assert _newest(model, chat) == [1, 2]


def test_what_a_crash_left_behind_is_ignored(model: Model, chat: Chat) -> None:
    chat.commit(_state(model, 1))
    for name in (".000002.rwkvstate.77-ab.tmp", "000002.bak", "x.rwkvstate", "2.rwkvstate"):
        (chat.folder / name).write_bytes(b"half")
    assert _newest(model, chat) == [1]
    assert chat.commit(_state(model, 2))


def test_latest_conversation_is_the_one_committed_to_last(model: Model, tmp_path: Path) -> None:
    chats = [new_chat(tmp_path) for _ in range(3)]
    assert len({chat.folder for chat in chats}) == 3
    for chat in chats:
        chat.commit(_state(model, 1))
    for age, chat in enumerate((chats[1], chats[2], chats[0])):
        os.utime(chat.files()[0], (1000 - age, 1000 - age))
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("x")
    assert latest_chat(tmp_path).folder == chats[1].folder


def test_where_nothing_was_said_nothing_is_found(tmp_path: Path) -> None:
    for parent in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFoundError):
            latest_chat(parent)
    assert Chat(tmp_path / "missing").files() == []
    assert model_of(Chat(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    ("transcript", "path"),
    [
        ('{"model": {"path": "/a/b.pth"}}', Path("/a/b.pth")),
        ("", None),
        ("[]", None),
        ('{"model": 5}', None),
        ('{"model": {"path": 5}}', None),
        ("[" * 100_000, None),
    ],
    ids=range(6),
)
def test_model_of_a_conversation_is_what_its_state_names(
    model: Model, chat: Chat, transcript: str, path: Path | None
) -> None:
    state = _state(model, 1)
    state.attachments = Attachments(transcript=transcript)
    chat.commit(state)
    assert model_of(chat) == path


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(StorageError, match="another user"):
        make_private(tmp_path / "chats")


def test_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("x")
    for folder in (tmp_path / "chats", tmp_path / "chats" / "a"):
        with pytest.raises(StorageError, match="cannot make"):
            make_private(folder)
