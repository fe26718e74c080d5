"""The keyboard side of a chat: one line or many, history, completion of commands; the only home of
prompt_toolkit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from rwkv_cli.render.progress import dim
from rwkv_cli.render.streams import STDIN, note

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]


class Keyboard:
    """Reads messages from a terminal.

    Enter sends; Alt-Enter and Ctrl-J begin a new line; a paste never sends. The prompt is drawn on
    stderr when stdout goes somewhere else.

    Args:
        commands: Names completed after a slash, each with what it does.
        history: File of earlier messages, readable by the owner alone; None keeps none.
        quiet: Give no hints.
    """

    def __init__(self, commands: Mapping[str, str], history: Path | None, *, quiet: bool) -> None:
        self._quiet = quiet
        words = {f"/{name}": text for name, text in commands.items()}
        output = None if os.isatty(1) else create_output(stdout=sys.stderr)
        self._session: PromptSession[str] = PromptSession(
            history=_private_history(history),
            completer=WordCompleter(list(words), meta_dict=words, sentence=True),
            reserve_space_for_menu=5,
            enable_suspend=True,
            complete_while_typing=Condition(self._is_command),
            key_bindings=_bindings(),
            multiline=True,
            prompt_continuation="  ",
            enable_history_search=False,
            placeholder=None,
            output=output,
        )

    def read(self, text: str = "", prompt: str = "> ") -> str | None:
        """Wait for a message; None when the user leaves (Ctrl-D). Ctrl-C clears the line.

        Args:
            text: What stands in the line at first.
            prompt: What stands before it.
        """
        while True:
            try:
                return self._session.prompt([("bold", prompt)], default=text)
            except KeyboardInterrupt:
                if not self._session.default_buffer.text and not self._quiet:
                    note(dim("Ctrl-D or /exit leaves"))
            except EOFError:
                return None

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """While this lasts, what is typed while an answer comes is not mixed into it, but waits
        for the next prompt as it was typed: a terminal turns Enter into a line end, which sends
        nothing.
        """
        if termios is None or not os.isatty(STDIN):
            yield
            return
        before = termios.tcgetattr(STDIN)
        quiet = list(before)
        quiet[0] &= ~termios.ICRNL
        quiet[3] &= ~termios.ECHO
        termios.tcsetattr(STDIN, termios.TCSANOW, quiet)
        try:
            yield
        finally:
            with suppress(termios.error):  # the window was closed
                termios.tcsetattr(STDIN, termios.TCSANOW, before)

    def _is_command(self) -> bool:
        return self._session.default_buffer.text.startswith("/")


def _private_history(path: Path | None) -> History:
    """Open the history, making its file unreadable for others before anything is in it."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return (
            InMemoryHistory()
        )  # a history is a comfort: a folder that cannot be written must not stop a chat
    return FileHistory(str(path))


def _bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
