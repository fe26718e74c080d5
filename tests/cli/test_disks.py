"""Real disks that take nothing more: the chat says so, goes on in memory, and saves when it can."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cli.running import COMMAND, rwkv
from cli.terminal import Terminal

from rwkv_cli.store.budget import Budget
from rwkv_cli.store.chatlog import ChatLog
from rwkv_cli.store.library import Library
from rwkv_cli.tree import Turn

_PROMPT = b"\x1b[?2004h"  # a terminal is told to bracket pastes when a line is asked for


def _mount(*arguments: object) -> bool:
    """Mount, or mount differently; False where that is not allowed."""
    command = shutil.which("mount")
    line = [str(argument) for argument in arguments]
    return (
        command is not None and not subprocess.run([command, *line], capture_output=True).returncode
    )


@pytest.fixture
def disk(env: dict[str, str]) -> Iterator[Path]:
    """A disk of 3 MB for the conversations."""
    folder = Path(env["RWKV_DATA_DIR"])
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", folder):
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    """While this lasts there is no room, not for a byte."""
    with (disk / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    (disk / "filling").unlink()


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    """While this lasts nothing can be written."""
    assert _mount("-o", "remount,ro", disk)
    yield
    assert _mount("-o", "remount,rw", disk)


Refusing = Callable[[Path], "contextmanager[None]"]
REFUSING = pytest.mark.parametrize(
    ("refusing", "why"),
    [(_full, "no space left"), (_read_only, "read-only")],
    ids=["full", "fixed"],
)


def _kept(disk: Path) -> ChatLog:
    """Read the conversation anew; nothing in it may be damaged, or left over."""
    warnings: list[str] = []
    folder = disk / "chats"
    log = Library(folder, Budget(folder), warn=warnings.append).latest()
    assert warnings == []
    assert [path for path in folder.rglob(".tmp-*") if path.parent == log.folder] == []
    return log


def _said(disk: Path) -> list[str]:
    return [turn.user for turn in _kept(disk).tree.path()]


def _ask(env: dict[str, str], *words: str) -> tuple[int, list[str]]:
    """Send a message; the exit status, and what was complained about. There is an answer always."""
    result = rwkv(["chat", "-q", *words], env)
    assert result.stdout
    lines = result.stderr.decode().splitlines()
    return result.returncode, [line for line in lines if not line.startswith("  ")]


@REFUSING
def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    disk: Path, env: dict[str, str], refusing: Refusing, why: str
) -> None:
    assert _ask(env, "Who are you?") == (0, [])
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    with refusing(disk):
        for words in (("-c", "And now?"), ("A new one.",)):
            code, (complaint,) = _ask(env, *words)
            assert code == 5
            assert complaint.startswith("rwkv: cannot ")
            assert why in complaint
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
    assert _said(disk) == ["Who are you?"]
    assert _ask(env, "-c", "And now?") == (0, [])
    assert _said(disk) == ["Who are you?", "And now?"]


@REFUSING
def test_an_unfinished_answer_stops_no_conversation(
    disk: Path, env: dict[str, str], refusing: Refusing, why: str
) -> None:
    assert _ask(env, "Who are you?") == (0, [])
    log = _kept(disk)
    half = Turn("00000001", log.tree.head, "Tell me more.", " There", (5, 6), (7,), "interrupt")
    log.draft(half)
    log.leave()
    with refusing(disk):
        code, complaints = _ask(env, "-c", "And now?")
        assert code == 5
        assert all(why in complaint for complaint in complaints)
    assert _ask(env, "-c", "And then?") == (0, [])
    assert _said(disk) == ["Who are you?", "Tell me more.", "And then?"]


@contextmanager
def _chatting(env: dict[str, str], *flags: str) -> Iterator[Terminal]:
    with Terminal([*COMMAND, "chat", *flags], env, columns=200, rows=60) as terminal:
        terminal.wait_until(lambda: _PROMPT in terminal.output, "the prompt")
        yield terminal


def _say(terminal: Terminal, line: str) -> str:
    """Send a line; what is shown until the next prompt."""
    before, prompts = len(terminal.text()), terminal.output.count(_PROMPT)
    terminal.send(line.encode() + b"\r")
    terminal.wait_until(lambda: terminal.output.count(_PROMPT) > prompts, f"a prompt after {line}")
    return terminal.text()[before:]


@REFUSING
def test_a_chat_goes_on_in_memory_and_saves_all_when_it_can(
    disk: Path, env: dict[str, str], refusing: Refusing, why: str
) -> None:
    with _chatting(env) as terminal:
        assert "rwkv: " not in _say(terminal, "Who are you?")
        with refusing(disk):
            for line in ("And now?", "/retry", "/tag here"):
                shown = _say(terminal, line)
                assert shown.count("rwkv: cannot ") == 1
                assert why in shown
                assert not {"Traceback", "Unhandled"} & set(shown.split())
            assert _said(disk) == ["Who are you?"]
        assert "rwkv: " not in _say(terminal, "And then?")
        terminal.send(b"\x04")
        assert terminal.finish() == 0
    assert _said(disk) == ["Who are you?", "And now?", "And then?"]
    tree = _kept(disk).tree
    assert len(tree.turns) == 4
    assert tree.tags == {"here": tree.path()[1].id}


@REFUSING
def test_a_chat_that_could_not_save_says_so_at_the_end(
    disk: Path, env: dict[str, str], refusing: Refusing, why: str
) -> None:
    with refusing(disk):
        with _chatting(env) as terminal:
            assert why in _say(terminal, "Who are you?")
            terminal.send(b"\x04")
            assert terminal.finish() == 5
            assert "could not be saved" in terminal.text()
        assert rwkv(["chats"], env).returncode == 0
    assert _ask(env, "Who are you?") == (0, [])
