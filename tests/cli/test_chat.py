"""The chat: one message from a pipe, and whole conversations on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.conftest import Cli
from cli.running import COMMAND
from cli.terminal import Terminal

from rwkv_cli.engine.statefile import read_attachments
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.library import Library
from rwkv_cli.tree import Turn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")

STORY = b"Tell me a story about a dog.\r"


def library(env: dict[str, str]) -> Library:
    """The conversations of a test."""
    folder = Path(env["RWKV_DATA_DIR"]) / "chats"
    return Library(folder, Budget(folder))


def commits(env: dict[str, str]) -> list[Path]:
    """List what is kept of conversations."""
    return sorted(p for p in Path(env["RWKV_DATA_DIR"]).glob("chats/*/*") if p.is_file())


def turns(env: dict[str, str]) -> list[Turn]:
    """Read the turns of the latest conversation."""
    return library(env).latest().tree.path()


def said(env: dict[str, str]) -> list[str]:
    """Read the messages of the latest conversation."""
    return [turn.user for turn in turns(env)]


# One message


def test_a_message_from_a_pipe_is_answered(cli: Cli, tiny: Path) -> None:
    result = cli("chat", "-m", tiny, "-N", "5", "--ban", "0", "--seed", "1", stdin=b"hi\n")
    assert result.code == 0
    assert result.out
    assert "rwkv chat -c" in result.err


def test_the_document_comes_before_the_words(cli: Cli, env: dict[str, str], tiny: Path) -> None:
    cli("chat", "-m", tiny, "-N", "1", "what is", "this?", stdin=b"a text")
    assert next(turn.finish for turn in turns(env)) == "open"
    assert said(env) == ["stdin", "what is this?"]


def test_a_file_is_read_once_for_all_conversations(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    manual = tmp_path / "manual.txt"
    manual.write_text("Turn the left screw until the lamp is green.\n" * 30)
    ask = ("chat", "-m", tiny, "-N", "4", "--temperature", "0", "-f", manual, "which screw?")
    cold, warm, uncached = cli(*ask), cli(*ask), cli(*ask, "--no-cache")
    assert "known" not in cold.err + uncached.err
    assert re.search(r"1,3\d\d tokens read \(1,3\d\d of them were known\)", warm.err)
    assert cold.out == warm.out == uncached.out


@pytest.mark.parametrize("stdin", [None, b"", b" \n"])
def test_no_message_is_an_error(cli: Cli, stdin: bytes | None) -> None:
    result = cli("chat", stdin=stdin)
    assert (result.code, result.out) == (2, b"")
    assert "no message" in result.err


def test_bytes_that_are_no_text_are_a_message_too(
    cli: Cli, env: dict[str, str], tiny: Path
) -> None:
    assert cli("chat", "-m", tiny, "-N", "1", "caf\udce9", stdin=b"\xff\x00").code == 0
    assert cli("chat", "--continue", "-N", "1", "more").code == 0


def test_to_continue_reads_nothing_again(cli: Cli, env: dict[str, str], tiny: Path) -> None:
    cli("chat", "-m", tiny, "-N", "3", "a rather long message to begin with " * 5)
    result = cli("chat", "--continue", "-N", "1", "-v", "hi")
    assert result.code == 0
    assert len(turns(env)) == 2
    assert len(turns(env)[1].prompt) <= len("\n\nUser: hi\n\nAssistant:")
    assert f"read {len(turns(env)[1].prompt)}" in result.err


def test_a_conversation_goes_on_with_its_own_model_format_and_settings(
    cli: Cli, env: dict[str, str], tiny: Path
) -> None:
    cli("chat", "-m", tiny, "--template", "raven", "--top-p", "0.125", "-N", "1", "hi")
    assert cli("chat", "--continue", "-N", "1", "hi").code == 0
    kept = library(env).latest()
    assert kept.begin is not None
    assert kept.begin.template == "raven"
    assert json.loads(kept.tree.path()[-1].sampler)["sampling"]["top_p"] == 0.125


def test_a_banned_token_is_never_used(cli: Cli, env: dict[str, str], tiny: Path) -> None:
    flags = ("-m", tiny, "--temperature", "0", "-N", "8", "--presence", "0", "--frequency", "0")
    first = cli("chat", *flags, "hi").out[:1]
    if not first:
        pytest.skip("this model has nothing to say")
    assert first not in cli("chat", *flags, "--ban", str(first[0]), "hi").out


@pytest.mark.parametrize("flag", ["-c", "--continue"])
def test_without_a_conversation_there_is_nothing_to_continue(cli: Cli, flag: str) -> None:
    assert cli("chat", flag, "hi").code == 3


def test_a_system_text_cannot_be_put_before_what_was_read(cli: Cli, tiny: Path) -> None:
    cli("chat", "-m", tiny, "-N", "1", "hi")
    result = cli("chat", "--continue", "-s", "Be kind.", "hi")
    assert result.code == 2
    assert "-s" in result.err


def test_a_model_that_is_gone_is_named(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(tiny.read_bytes())
    cli("chat", "-m", moved, "-N", "1", "hi")
    moved.unlink()
    result = cli("chat", "--continue", "hi")
    assert result.code == 3
    assert str(moved) in result.err
    assert cli("chat", "--continue", "-m", tiny, "-N", "1", "hi").code == 0


def test_without_saving_nothing_is_left_on_the_disk(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    assert cli("chat", "-m", tiny, "-N", "1", "--no-save", "hi").code == 0
    assert list(tmp_path.iterdir()) == []


def test_a_continued_conversation_is_left_as_it_was_without_saving(
    cli: Cli, env: dict[str, str], tiny: Path
) -> None:
    cli("chat", "-m", tiny, "-N", "1", "hi")
    before = {path: path.read_bytes() for path in commits(env)}
    assert cli("chat", "--continue", "--no-save", "-N", "1", "hi").code == 0
    assert {path: path.read_bytes() for path in commits(env)} == before


def test_what_is_damaged_is_left_as_it_was_without_saving(
    cli: Cli, env: dict[str, str], tiny: Path
) -> None:
    cli("chat", "-m", tiny, "-N", "1", "hi")
    for path in commits(env):
        if path.suffix == ".rwkvstate":
            path.write_bytes(b"damaged")
    (library(env).latest().folder / ".tmp-1-2").write_bytes(b"half")
    before = {path: path.read_bytes() for path in commits(env)}
    result = cli("chat", "--continue", "--no-save", "-N", "1", "hi")
    assert result.code == 0
    assert "made again" in result.err
    assert {path: path.read_bytes() for path in commits(env)} == before


def test_what_is_kept_is_for_its_owner_alone(cli: Cli, env: dict[str, str], tiny: Path) -> None:
    old = os.umask(0)
    try:
        cli("chat", "-m", tiny, "-N", "1", "hi")
    finally:
        os.umask(old)
    data = Path(env["RWKV_DATA_DIR"])
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for path in commits(env):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


# On a terminal


def at_prompt(terminal: Terminal) -> bool:
    return terminal.line() == ">"


@contextmanager
def chatting(env: dict[str, str], *flags: str) -> Iterator[Terminal]:
    """Start a chat with the demo model and wait for its prompt."""
    with Terminal([*COMMAND, "chat", *flags], env, columns=160, rows=60) as terminal:
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        yield terminal


def say(terminal: Terminal, text: bytes) -> str:
    """Type a line, wait for the next prompt, and give what came in between."""
    before, echo = terminal.text(), "\n> " + text.decode().strip()
    count = before.count(echo)
    terminal.send(text)
    terminal.wait_until(
        lambda: terminal.text().count(echo) > count and at_prompt(terminal), f"more than {echo}"
    )
    return terminal.text()[len(before) :]


def wait_for_words(terminal: Terminal, after: str) -> None:
    """Wait until an answer has begun below a line."""
    begun = re.compile(re.escape(after) + r"\s*\n(?!loading)\S+ \S+ ")
    terminal.wait_until(lambda: begun.search(terminal.text()) is not None, "the answer")


def test_a_conversation_with_commands(env: dict[str, str], tmp_path: Path) -> None:
    with chatting(env, "--seed", "1") as terminal:
        assert "/help" in terminal.text()
        assert len(say(terminal, b"Who are you?\r").splitlines()) >= 2
        assert len(turns(env)) == 1

        shown = say(terminal, b"/help\r")
        assert all(f"/{name}" in shown for name in ("undo", "retry", "set", "new", "exit"))
        assert "temperature=0.5" in say(terminal, b"/set temperature=0.5\r")
        assert "must lie between" in say(terminal, b"/set temperature=99\r")
        assert "must be a number" in say(terminal, b"/set top_k=x\r")
        assert "did you mean /help?" in say(terminal, b"/hlep\r")
        assert "no such command" in say(terminal, b"/unknown x\r")
        assert "token" in say(terminal, b"/stats\r")
        say(terminal, b"/stats off\r")

        say(terminal, b"/retry\r")
        assert said(env) == ["Who are you?"]
        say(terminal, b"//etc\r")
        assert said(env) == ["Who are you?", "/etc"]
        assert "1 turn" in say(terminal, b"/undo\r")
        assert "cannot take back" in say(terminal, b"/undo 5\r")
        assert "takes a number" in say(terminal, b"/undo x\r")

        saved = tmp_path / "kept.rwkvstate"
        assert "saved" in say(terminal, f"/save {saved}\r".encode())
        assert "Who are you?" in read_attachments(saved).transcript
        assert "/save" in say(terminal, b"/save\r")
        assert "rwkv: " in say(terminal, b"/save /dev/null/x\r")

        say(terminal, b"/system Be kind.\r")
        assert "Be kind." in say(terminal, b"/system\r")
        say(terminal, b"hello\r")
        assert said(env) == ["hello"]
        terminal.send(b"/exit\r")
        assert terminal.finish() == 0
        assert "rwkv chat -c" in terminal.text()
    history = Path(env["RWKV_DATA_DIR"]) / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "Who are you?" in history.read_text()


def test_a_paste_of_several_lines_does_not_send(env: dict[str, str]) -> None:
    with chatting(env, "--no-save") as terminal:
        terminal.send(b"\x1b[200~first line\nsecond line\nthird line\x1b[201~")
        terminal.wait_for("third line")
        terminal.wait_quiet()
        assert terminal.line().strip() == "third line"
        terminal.send(b"\x03")
        terminal.wait_until(lambda: at_prompt(terminal), "an empty prompt")
        terminal.send(b"/he\x1b\rlp")  # Alt-Enter begins a line
        terminal.wait_quiet()
        assert terminal.line().strip() == "lp"
        terminal.send(b"\x03")
        terminal.wait_until(lambda: at_prompt(terminal), "an empty prompt")
        terminal.send(b"\x04")
        assert terminal.finish() == 0


def test_an_interrupt_stops_the_answer_and_keeps_it(env: dict[str, str]) -> None:
    # On the native engine the whole answer takes less time than a key press to arrive.
    with chatting(env, "--seed", "1", "--engine", "torch") as terminal:
        terminal.send(STORY)
        wait_for_words(terminal, "about a dog.")
        terminal.send(b"\x03")
        terminal.wait_for("is kept")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        kept = turns(env)
        assert kept[0].finish == "interrupt"
        assert kept[0].answer.strip()
        say(terminal, b"Who are you?\r")
        assert [t.finish for t in turns(env)][1] in ("stop", "end", "length")
        assert "Ctrl-D" in say_nothing(terminal)
        terminal.send(b"\x04")
        assert terminal.finish() == 0


def say_nothing(terminal: Terminal) -> str:
    """Press Ctrl-C at an empty prompt; give what comes of it."""
    before = terminal.text()
    terminal.send(b"\x03")
    terminal.wait_until(lambda: terminal.text().count(">") > before.count(">"), "a prompt")
    return terminal.text()[len(before) :]


def test_what_is_typed_ahead_is_sent_after_the_answer(env: dict[str, str]) -> None:
    with chatting(env, "--no-save", "--seed", "1") as terminal:
        terminal.send(STORY)
        wait_for_words(terminal, "about a dog.")
        terminal.send(b"/stats\r")
        terminal.wait_for("> /stats")
        terminal.wait_for("token")
        assert terminal.text().count("/stats") == 1
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        terminal.send(b"\x04")
        assert terminal.finish() == 0


def test_a_window_may_change_while_an_answer_comes(env: dict[str, str]) -> None:
    with chatting(env, "--no-save", "--seed", "1") as terminal:
        terminal.send(STORY)
        wait_for_words(terminal, "about a dog.")
        for columns in (40, 3, 120):
            terminal.resize(columns, 30)
            terminal.pump(0.05)
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        say(terminal, b"/help\r")
        terminal.send(b"\x04")
        assert terminal.finish() == 0


def test_a_killed_chat_goes_on_where_it_was(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1") as terminal:
        say(terminal, b"Who are you?\r")
        terminal.send(STORY)
        wait_for_words(terminal, "about a dog.")
        terminal.kill()
    kept = turns(env)  # the story too, if it was at its end already
    with chatting(env, "--continue") as terminal:
        text = " ".join(terminal.text().split())
        assert "continuing " in text
        assert f"{len(kept)} turn" in text
        assert f"> {kept[-1].user}" in text
        assert " ".join(kept[-1].answer.split()[:5]) in text
        say(terminal, b"And now?\r")
        assert [turn.user for turn in turns(env)][:: len(turns(env)) - 1] == [
            "Who are you?",
            "And now?",
        ]


@pytest.mark.parametrize("typed", [b"", b"half a mess"])
def test_a_request_to_end_leaves_the_terminal_in_order(env: dict[str, str], typed: bytes) -> None:
    with chatting(env, "--no-save") as terminal:
        terminal.send(typed)
        terminal.wait_quiet()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.finish() == 143
        flags = terminal.modes()
    assert flags & termios.ECHO
    assert flags & termios.ICANON


def test_a_request_to_end_keeps_the_answer_so_far(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1") as terminal:
        terminal.send(STORY)
        wait_for_words(terminal, "about a dog.")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.finish() == 143
    assert turns(env)[0].answer.strip()


def test_a_model_that_cannot_be_loaded_ends_the_chat(
    env: dict[str, str], tmp_path: Path, tiny: Path
) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    with chatting(env, "-m", str(tiny), "--tokenizer", str(tokenizer)) as terminal:
        terminal.send(b"hi\r")
        assert terminal.finish() == 6
        assert "tokenizer.json" in terminal.text().replace("\n", "")


def test_without_saving_a_terminal_leaves_nothing_on_the_disk(
    env: dict[str, str], tmp_path: Path
) -> None:
    with chatting(env, "--no-save") as terminal:
        say(terminal, b"hello\r")
        terminal.send(b"quit\r")
        assert terminal.finish() == 0
    assert list(tmp_path.iterdir()) == []
