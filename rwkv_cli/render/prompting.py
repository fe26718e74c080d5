"""The keyboard side of a chat: one line or many, history, completion of commands; the only home of
prompt_toolkit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output


class Keyboard:
    """Reads messages from a terminal.

    Enter sends; Alt-Enter and Ctrl-J begin a new line; a paste never sends. The prompt is drawn on
    stderr when stdout goes somewhere else.

    Args:
        commands: Names completed after a slash.
        history: File of earlier messages, readable by the owner alone; None keeps none.
    """

    def __init__(self, commands: Sequence[str], history: Path | None) -> None:
        self._starting_text = ""
        words = [f"/{name}" for name in commands]
        output = None if os.isatty(1) else create_output(stdout=sys.stderr)
        self._session: PromptSession[str] = PromptSession(
            history=_private_history(history),
            completer=WordCompleter(words, sentence=True),
            complete_while_typing=Condition(self._is_command),
            key_bindings=_bindings(),
            multiline=True,
            prompt_continuation="  ",
            enable_history_search=False,
            placeholder=None,
            output=output,
        )

    def read(self) -> str | None:
        """Wait for a message; None when the user leaves (Ctrl-D). Ctrl-C clears the line."""
        while True:
            try:
                return self._session.prompt("> ")
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None

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
