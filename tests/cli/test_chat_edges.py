"""What a chat does when it is asked for what cannot be, and that nothing is lost by it."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest
from cli.conftest import Cli
from cli.running import COMMAND
from cli.terminal import Terminal
from cli.test_chat import at_prompt, chatting, library, said, say, turns, wait_for_words
from cli.test_chat_keys import leave

import rwkv_cli
from rwkv_cli.tree import OPEN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")

# Without line ends, and on the slower engine, an answer lasts.
ENDLESS = ("--ban", "0", "--ban", "199", "-N", "6000", "--engine", "torch")


def test_numbers_and_names_that_make_no_sense_cost_only_the_line(
    env: dict[str, str], tmp_path: Path
) -> None:
    with chatting(env, "--seed", "1") as terminal:
        say(terminal, b"Who are you?\r")
        for command in ("export", "file", "save"):
            terminal.send(f"/{command} {'x' * 300}\r".encode())
            terminal.wait_for("too long")
            terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
            say(terminal, b"/new\r")
        say(terminal, b"Who are you?\r")
        for line in (
            "/alt 0000019", "/alt 5", "/best 0000020", "/best 99999999999", "/undo 99999999999",
            "/goto 0000000012", "/goto 7",
            "/file /root/../proc/1/mem", "/rewind 99w", "/rewind", "/edit 9", "/edit 0", "/tag",
            f"/set top_k={'9' * 60}", "/set top_p=", "/think x", "/seed -1", "/resume zzz",
            "/model nothing", "/system none", "/peek", "/continue",
        ):  # fmt: skip
            shown = say(terminal, f"{line}\r".encode())
            assert "bug" not in shown
            assert "Traceback" not in shown
        assert "Unhandled" not in terminal.text()
        leave(terminal)


def test_an_edit_that_is_given_up_changes_nothing(env: dict[str, str], tmp_path: Path) -> None:
    text = tmp_path / "doc.txt"
    text.write_text("The port is 77.\n")
    with chatting(env, "--seed", "1") as terminal:
        say(terminal, b"Who are you?\r")
        say(terminal, b"Tell me a story.\r")
        terminal.send(b"/edit\r")
        terminal.wait_for("edit> Tell me a story.")
        terminal.send(b"\x15\r")  # Ctrl-U: an empty message
        terminal.wait_for("the message is empty")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert said(env) == ["Who are you?", "Tell me a story."]
        say(terminal, f"/file {text}\r".encode())
        terminal.send(b"\x1b\x1b")
        terminal.wait_for("is material")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert turns(env)[-1].finish == OPEN
        terminal.send(b"/paste\r")
        terminal.wait_for("paste>")
        terminal.send(b"\x1b\x1b")  # means nothing here
        terminal.wait_quiet(0.8)
        assert terminal.line() == "paste>"
        terminal.send(b"\x04")
        terminal.wait_for("nothing was read")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        leave(terminal)


def test_a_question_beside_the_conversation_leaves_no_trace(env: dict[str, str]) -> None:
    secret = "what is the secret of the old mill by the river " * 8
    with chatting(env, "--seed", "1") as terminal:
        terminal.send(f"/peek {secret}\r".encode())
        terminal.wait_for("nothing of it is kept")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        leave(terminal)
    for root in (env["RWKV_DATA_DIR"], env["RWKV_CACHE_DIR"]):
        files = [path for path in Path(root).rglob("*") if path.is_file()]
        assert not any(b"old mill" in path.read_bytes() for path in files)
        assert not list(Path(root).rglob("*.rwkvstate"))


def test_another_model_takes_over_a_copy_that_is_kept(
    env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny.read_bytes())
    with chatting(env, "-m", str(tiny), "-N", "4") as terminal:
        terminal.send(b"hello\r")
        terminal.wait_for("ms/token")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert "in a copy" in say(terminal, f"/model {other}\r".encode())
        assert len(library(env).ids()) == 2
        leave(terminal)
    assert said(env) == ["hello"]


def test_a_copy_for_a_model_that_is_not_its_own_is_not_left_behind(cli: Cli, tiny: Path) -> None:
    cli("chat", "-m", tiny, "-N", "1", "hi")
    before = cli("chats").out
    chat = before.split()[0].decode()
    assert cli("chat", "--fork", chat, "-m", "demo", "hi").code == 4
    assert cli("chats").out == before
    result = cli("chat", "--fork", chat, "--no-save", "-v", "-N", "1", "so")
    assert result.code == 0
    assert "read 2" in result.err  # the copy of the state is used, though nothing is saved
    assert cli("chats").out == before


def test_a_conversation_that_began_from_a_state_is_read_again_with_it(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny.read_bytes())
    cli("state", "make", "port", "The port is 77.", "-m", tiny)
    cli("chat", "-m", tiny, "-N", "1", "--state", "port", "hi")
    chat = library(env).latest().id
    assert cli("chat", "--fork", chat, "--no-save", "-N", "1", "so").code == 0
    assert cli("chat", "-r", chat, "--rebuild", "-m", other, "-N", "1", "so").code == 0
    kept = library(env).latest()
    assert kept.id != chat
    assert kept.begin is not None
    assert kept.begin.based


def test_a_request_to_end_is_heard_while_several_answers_come(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1", *ENDLESS) as terminal:
        terminal.send(b"/best 8 Tell me a story about a dog.\r")
        terminal.wait_for("answering")
        os.kill(terminal.process.pid, signal.SIGTERM)
        assert terminal.finish() == 143
    assert len(library(env).latest().tree.turns) == 8


def test_a_new_conversation_draws_other_numbers_unless_a_seed_was_asked_for(
    env: dict[str, str],
) -> None:
    def seed_of(shown: str) -> str:
        return shown.partition("seed=")[2].split()[0]

    with chatting(env) as terminal:
        first = seed_of(say(terminal, b"/set\r"))
        say(terminal, b"/new\r")
        assert seed_of(say(terminal, b"/set \r")) != first
        say(terminal, b"/seed 7\r")
        say(terminal, b"/new again\r")
        assert seed_of(say(terminal, b"/set  \r")) == "7"
        leave(terminal)


def test_a_document_is_piped_in_and_asked_about_at_the_keyboard(
    env: dict[str, str], tmp_path: Path
) -> None:
    document = tmp_path / "doc.txt"
    document.write_bytes(b"The port is 77. " * 5_000)  # more than a pipe holds at once
    command = ["bash", "-c", 'cat "$0" | "$@" chat -i --seed 1', str(document), *COMMAND]
    with Terminal(command, env, columns=160, rows=60) as terminal:
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert "tokens read; ask about it" in terminal.text()
        say(terminal, b"Who are you?\r")
        leave(terminal)
    material, question = turns(env)
    read = scripted_text(material.prompt)
    assert read.count("The port is 77.") == 5_000
    assert question.user == "Who are you?"


def scripted_text(tokens: Sequence[int]) -> str:
    """Give the text of tokens of the demo."""
    model = rwkv_cli.load("demo")
    return b"".join(map(model.tokenizer.token_bytes, tokens)).decode()


def test_what_is_being_typed_can_be_left_by_its_key(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1") as terminal:
        say(terminal, b"Who are you?\r")
        for command, prompt in ((b"/edit\r", "edit>"), (b"/paste\r", "paste>")):
            terminal.send(command)
            terminal.wait_for(prompt)
            terminal.wait_quiet()
            terminal.send(b"\x03")
            terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        terminal.send(b"/best 2\r")
        terminal.wait_for("1-2>")
        terminal.wait_quiet()
        terminal.send(b"\x03")
        terminal.wait_for("none of them is kept")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert len(library(env).latest().tree.turns) == 1
        terminal.send(b"/best 3\r")
        terminal.wait_for("1-3>")
        terminal.send(b"2\r")
        terminal.wait_for("going on from answer 2, turn 1c")  # the second of those beside 1a
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        leave(terminal)


def test_colours_and_controls_that_are_typed_do_no_harm(env: dict[str, str]) -> None:
    with chatting(env, "--no-save", "--seed", "1") as terminal:
        terminal.send(b"\x1b[31mred\x1b[0m")  # a paste, where pastes are not told of
        terminal.wait_for("red")
        terminal.wait_quiet()
        assert "Unhandled" not in terminal.text()
        terminal.send(b"\x15")
        paste = b"\x1b[200~/export a\x00b\x1b[201~\r"
        terminal.send(paste)
        terminal.wait_for("NUL")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        say(terminal, b"/tag 1b\r")
        assert "how turns are called" in terminal.text()
        leave(terminal)


def test_after_a_pause_of_an_answer_the_terminal_is_as_before(env: dict[str, str]) -> None:
    with chatting(env, "--no-save", "--seed", "1", *ENDLESS) as terminal:
        terminal.send(b"Tell me a story about a dog.\r")
        wait_for_words(terminal, "about a dog.")
        os.kill(terminal.process.pid, signal.SIGSTOP)
        terminal.set_modes_of_input(terminal.modes_of_input() | termios.ICRNL)  # as a shell does
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.wait_until(lambda: not terminal.modes_of_input() & termios.ICRNL, "our modes")
        terminal.send(b"\x03")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        say(terminal, b"/stats\r")
        leave(terminal)


def test_what_is_typed_ahead_outlasts_an_interrupt(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1", *ENDLESS) as terminal:
        terminal.send(b"Tell me a story about a dog.\r")
        wait_for_words(terminal, "about a dog.")
        terminal.send(b"/stats off\r")
        terminal.pump(0.2)
        terminal.send(b"\x03")
        terminal.wait_for("figures are off")
        leave(terminal)
