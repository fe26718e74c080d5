"""The keyboard side of a chat: one line or many, history, completion of commands, long pastes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, is_searching
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import create_output
from prompt_toolkit.styles import Style

from rwkv_cli.render.pastes import Pastes
from rwkv_cli.render.streams import STDIN, note
from rwkv_cli.render.style import dim
from rwkv_cli.render.treepick import pick_turn
from rwkv_cli.render.treeview import TreeLine

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

_TICK = 0.2  # seconds between two looks at how far loading is
_PROMPT = "> "
_EDIT = "/edit"  # what Esc Esc stands for

_SPACE = re.compile(r"(?<!\\) ")  # one that is not part of a name
_TRACELESS = "/peek"

# The words that may follow a command, and whether they are paths instead.
Words = Callable[[str], Sequence[str]]


class Keyboard:
    """Reads messages from a terminal.

    Enter sends; Alt-Enter and Ctrl-J begin a new line; a paste never sends, and a long one is
    folded; Esc Esc at an empty line edits the last message; Ctrl-R searches what was typed before.
    The prompt is drawn on stderr when stdout goes somewhere else.

    Args:
        commands: Names completed after a slash, each with what it does.
        words: Gives what may follow a command.
        paths: Commands that are followed by paths.
        history: File of earlier messages, readable by the owner alone; None keeps none.
        status: Tells what is going on meanwhile; empty when nothing is.
        quiet: Give no hints.
    """

    def __init__(
        self,
        commands: Mapping[str, str],
        words: Words,
        paths: Sequence[str],
        *,
        history: Path | None,
        status: Callable[[], str],
        quiet: bool,
    ) -> None:
        self._quiet, self._status = quiet, status
        self._pastes, self._editing = Pastes(), False
        self._output = None if os.isatty(1) else create_output(stdout=sys.stderr)
        self._session: PromptSession[str] = PromptSession(
            history=_history(history, self._pastes),
            completer=_Commands(commands, words, paths),
            reserve_space_for_menu=5,
            enable_suspend=True,
            complete_while_typing=Condition(self._is_command),
            key_bindings=self._bindings(),
            multiline=True,
            prompt_continuation="  ",
            style=Style.from_dict({"bottom-toolbar": "noreverse", "bottom-toolbar.text": ""}),
            output=self._output,
        )

    def read(self, text: str = "", prompt: str = _PROMPT) -> str | None:
        """Wait for a message; None when the user leaves (Ctrl-D). Ctrl-C clears the line, or leaves
        what is not the main prompt.

        Args:
            text: What stands in the line at first.
            prompt: What stands before it.
        """
        self._editing = prompt != _PROMPT
        while True:
            self._session.bottom_toolbar = self._toolbar if self._status() else None
            default = self._pastes.fold(text)
            try:
                line = self._session.prompt(
                    [("bold", prompt)], default=default, pre_run=self._watch
                )
                return self._pastes.unfold(line)
            except KeyboardInterrupt:
                if self._editing:
                    return None
                if not self._session.default_buffer.text and not self._quiet:
                    note(dim("Ctrl-D or /exit leaves"))
            except EOFError:
                return None

    def pick(self, lines: Sequence[TreeLine], here: str, legend: str) -> str | None:
        """Let the user choose a turn of a tree with the arrow keys; None when they would not."""
        return pick_turn(lines, here, legend, self._output)

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
        quiet[3] |= termios.NOFLSH  # Ctrl-C stops an answer, not what is typed for the next

        def silence(*_: object) -> None:
            if not self._session.app.is_running:  # whose modes are its own
                termios.tcsetattr(STDIN, termios.TCSANOW, quiet)

        silence()
        handler = signal.signal(signal.SIGCONT, silence)  # a shell sets its own modes meanwhile
        try:
            yield
        finally:
            signal.signal(signal.SIGCONT, handler)
            with suppress(termios.error):  # the window was closed
                termios.tcsetattr(STDIN, termios.TCSANOW, before)

    def _watch(self) -> None:
        """Draw the status below the prompt anew for as long as there is one."""
        app = self._session.app

        async def redraw() -> None:
            while self._status():
                await asyncio.sleep(_TICK)
                app.invalidate()
            self._session.bottom_toolbar = None
            app.invalidate()

        if self._status():
            app.create_background_task(redraw())

    def _toolbar(self) -> StyleAndTextTuples:
        text = self._status()
        return [("fg:ansibrightblack", text[: shutil.get_terminal_size().columns - 1])]

    def _is_command(self) -> bool:
        return self._session.default_buffer.text.startswith("/")

    def _bindings(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter", filter=~is_searching)  # there Enter takes what was found
        def send(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("escape", "escape", filter=Condition(self._is_empty))
        def edit(event: KeyPressEvent) -> None:
            event.app.exit(result=_EDIT)

        @keys.add("c-x", "c-e")
        def open_editor(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            buffer.text = self._pastes.unfold(buffer.text)
            buffer.open_in_editor()

        @keys.add(Keys.Vt100MouseEvent)
        def ignore(event: KeyPressEvent) -> None:
            """The mouse is not asked for: this is a colour in a text that was pasted."""

        @keys.add(Keys.BracketedPaste)
        def paste(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text(self._pastes.fold(event.data))

        return keys

    def _is_empty(self) -> bool:
        return not (self._editing or self._session.default_buffer.text)


class _Commands(Completer):
    """Completes the names of commands, and what may follow them."""

    def __init__(self, commands: Mapping[str, str], words: Words, paths: Sequence[str]) -> None:
        self._commands, self._words, self._named = commands, words, paths
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        """Give what may stand where the cursor is."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        last = argument.rpartition(" ")[2]
        if not space:
            for word, what in self._commands.items():
                if word.startswith(name):
                    yield Completion(f"/{word}", -len(text), display_meta=what)
        elif name in self._named:
            last = _SPACE.split(argument)[-1].replace("\\ ", " ")
            for path in self._paths.get_completions(Document(last), event):
                text = path.text.replace(" ", "\\ ")
                yield Completion(text, path.start_position, display=path.display)
        else:
            for word in self._words(name):
                if word.startswith(last) and " " not in word:
                    yield Completion(word, -len(last))


class _PrivateHistory(FileHistory):
    """Keeps what was sent, not the marks that stood for it."""

    def __init__(self, path: Path, pastes: Pastes) -> None:
        self._pastes = pastes
        super().__init__(str(path))

    def append_string(self, string: str) -> None:
        """Keep a message, unless it shall leave no trace."""
        if not string.startswith(_TRACELESS):
            super().append_string(self._pastes.unfold(string))

    def store_string(self, string: str) -> None:
        """Write it to the file; a disk that takes nothing must not stop a chat."""
        with suppress(OSError):
            super().store_string(string)


def _history(path: Path | None, pastes: Pastes) -> History:
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
    return _PrivateHistory(path, pastes)
