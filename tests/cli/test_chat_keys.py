"""What a chat does with keys, pastes and the tree, on terminals of several kinds and sizes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli.running import COMMAND
from cli.terminal import Terminal
from cli.test_chat import at_prompt, chatting, library, said, say, turns

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")

PASTED = "\n".join(f"line {number}" for number in range(500))


def paste(terminal: Terminal, text: str) -> None:
    """Paste as a terminal does."""
    terminal.send(f"\x1b[200~{text}\x1b[201~".encode())


def leave(terminal: Terminal) -> None:
    """Leave an empty line."""
    terminal.send(b"\x04")
    assert terminal.finish() == 0


def test_a_long_paste_is_folded_and_sent_whole(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1") as terminal:
        paste(terminal, PASTED)
        terminal.wait_until(lambda: terminal.line() == "> [pasted 500 lines]", "the mark")
        terminal.send(b" what is this?\r")
        terminal.wait_for("ms/token")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert said(env) == [f"{PASTED} what is this?"]
        history = (Path(env["RWKV_DATA_DIR"]) / "history").read_text()
        assert "line 499 what is this?" in history
        assert "pasted" not in history
        terminal.send(b"/paste\r")
        terminal.wait_for("paste>")
        paste(terminal, PASTED)
        terminal.wait_for("paste> [pasted 500 lines]")
        terminal.send(b"\r")
        terminal.wait_for("tokens read; ask about it")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert "took back 1" in say(terminal, b"/undo\r")
        leave(terminal)


def test_escape_twice_edits_the_last_message(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1") as terminal:
        say(terminal, b"Who are you?\r")
        terminal.send(b"\x1b\x1b")
        terminal.wait_for("edit> Who are you?")
        terminal.send(b" Tell me.\r")
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert said(env) == ["Who are you? Tell me."]
        assert len(library(env).latest().tree.turns) == 2
        leave(terminal)


def test_what_was_typed_is_searched(env: dict[str, str]) -> None:
    with chatting(env, "--no-save", "--seed", "1") as terminal:
        say(terminal, b"/seed 77\r")
        say(terminal, b"/seed 5\r")
        terminal.send(b"\x12")  # Ctrl-R
        terminal.wait_for("I-search")
        terminal.send(b"seed 7")
        terminal.wait_for("> /seed 77")
        terminal.wait_quiet()
        terminal.send(b"\r\r")
        terminal.wait_until(lambda: terminal.text().count("seed=77") == 2, "the settings again")
        leave(terminal)


def test_the_tree_is_gone_about_in_with_the_arrow_keys(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1") as terminal:
        say(terminal, b"Who are you?\r")
        say(terminal, b"Tell me a story.\r")
        say(terminal, b"/retry\r")
        terminal.send(b"/tree\r")
        terminal.wait_for("Enter, Esc")
        terminal.send(b"\x1b[A\x1b[A")
        terminal.wait_quiet()
        terminal.send(b"\r")
        terminal.wait_for("at turn 1")
        assert said(env) == ["Who are you?"]
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert "Enter, Esc" not in terminal.text()  # the picture is taken away
        terminal.send(b"/tree\r")
        terminal.wait_for("Enter, Esc")
        terminal.send(b"\x1b[F\x1b")  # End, Esc
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        assert said(env) == ["Who are you?"]
        leave(terminal)


def test_a_conversation_is_written_to_files_from_within(
    env: dict[str, str], tmp_path: Path
) -> None:
    with chatting(env, "--seed", "1") as terminal:
        say(terminal, b"Who are you?\r")
        (answer,) = (turn.answer.strip() for turn in turns(env))
        for name in ("a.md", "a.json", "a.jsonl"):
            assert "written" in say(terminal, f"/export {tmp_path / name}\r".encode())
        assert "there already" in say(terminal, f"/export {tmp_path / 'a.md'}\r".encode())
        assert "written" in say(terminal, f"/export openai {tmp_path / 'b'}\r".encode())
        leave(terminal)
    assert answer in (tmp_path / "a.md").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["turns"][0]["user"] == "Who are you?"
    for name in ("a.jsonl", "b"):
        assert json.loads((tmp_path / name).read_text())["messages"][1]["content"] == answer


def test_a_system_text_is_kept_under_a_name(env: dict[str, str]) -> None:
    with chatting(env) as terminal:
        assert "none yet" in say(terminal, b"/persona\r")
        assert "no system text" in say(terminal, b"/persona save kind\r")
        say(terminal, b"/system Be kind.\r")
        assert "kept as kind" in say(terminal, b"/persona save kind\r")
        say(terminal, b"/system none\r")
        assert "as kind" in say(terminal, b"/persona kind\r")
        assert "Be kind." in say(terminal, b"/system\r")
        assert "there is no persona" in say(terminal, b"/persona rude\r")
        assert "is no name" in say(terminal, b"/persona save ../x\r")
        leave(terminal)


def test_an_answer_goes_to_the_clipboard(env: dict[str, str]) -> None:
    without = {**env, "PATH": ""}
    with chatting(without, "--seed", "1", "--no-save") as terminal:
        assert "no answer yet" in say(terminal, b"/copy\r")
        say(terminal, b"Who are you?\r")
        assert "copied by" in say(terminal, b"/copy\r")
        assert b"\x1b]52;c;" in terminal.output
        assert "no code" in say(terminal, b"/copy code\r")
        leave(terminal)


def test_commands_and_what_follows_them_are_completed(env: dict[str, str]) -> None:
    with chatting(env, "--seed", "1", "--no-save") as terminal:
        say(terminal, b"Who are you?\r")
        say(terminal, b"/tag first\r")
        for typed, whole in ((b"/pers", "/persona"), (b"/goto fi", "/goto first")):
            terminal.send(typed)
            terminal.wait_quiet()
            terminal.send(b"\t")
            terminal.wait_for(f"> {whole}")
            terminal.send(b"\x03")
            terminal.wait_until(lambda: at_prompt(terminal), "an empty prompt")
        leave(terminal)


def test_figures_follow_an_answer_and_fit_the_line(env: dict[str, str]) -> None:
    with Terminal(
        [*COMMAND, "chat", "--seed", "1", "--no-save"], env, columns=40, rows=12
    ) as small:
        small.wait_until(lambda: at_prompt(small), "the prompt")
        say(small, b"Who are you?\r")
        footer = [line for line in small.text().split("\n") if "ms/token" in line]
        assert len(footer) == 1
        assert "so far" in footer[0]
        say(small, b"/stats off\r")
        say(small, b"Who are you?\r")
        assert small.text().count("ms/token") == 1
        assert "/tree" in say(small, b"/help\r")
        leave(small)


def test_a_terminal_that_can_do_nothing_gets_plain_text(env: dict[str, str]) -> None:
    command = [*COMMAND, "chat", "--seed", "1"]
    with Terminal(command, {**env, "TERM": "dumb"}, columns=80, rows=30) as terminal:
        terminal.wait_until(lambda: at_prompt(terminal), "the prompt")
        for line in (b"Who are you?\r", b"/tree\r", b"/retry\r"):
            terminal.send(line)
            terminal.wait_quiet(0.6)
        assert "1 rwkv" in terminal.text()
        terminal.send(b"/exit\r")
        assert terminal.finish() == 0
    assert b"\x1b[1m" not in terminal.output
    assert len(library(env).latest().tree.turns) == 2
