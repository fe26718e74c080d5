"""The chat loop: messages and commands in, answers out, and every turn kept before the next."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rwkv_cli.cli.app import Interrupted, Terminated
from rwkv_cli.cli.conversing import Opening
from rwkv_cli.cli.loading import interruptible
from rwkv_cli.cli.prompt import Prompt
from rwkv_cli.cli.slash import COMMANDS, OLD_WORDS, obey
from rwkv_cli.errors import RwkvError, StorageError, UsageError
from rwkv_cli.generation import INTERRUPT, LENGTH
from rwkv_cli.places import data_folder
from rwkv_cli.render.progress import Progress, counted, dim, speed
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDOUT, is_terminal, note, stdout_sink
from rwkv_cli.session import Conversation, Reply
from rwkv_cli.tree import OPEN, Turn

if TYPE_CHECKING:
    from rwkv_cli.render.prompting import Keyboard
    from rwkv_cli.store.chatlog import ChatLog
    from rwkv_cli.store.library import Library

_COMMAND = re.compile(r"/([A-Za-z?]+)(?:\s+(.*))?", re.DOTALL)
_UNSAVED = (
    "the conversation goes on in memory, and the next turn tries to save it again; "
    "--no-save leaves nothing on the disk from the beginning"
)
_LEAVE = {"exit", "quit", "bye", ":q"}


class Repl:
    """A conversation at a terminal, or one message from a pipe.

    Args:
        opening: Begins the conversation when its model is there.
        flags: What the command line says.

    Attributes:
        library: All conversations.
        leaving: Whether the loop shall end.
        quiet: Whether to say nothing but errors.
        stats: Whether figures follow every answer.
        figures: Those of the last answer.
        seconds_per_token: How long reading a token took; None before anything was read.
    """

    def __init__(self, opening: Opening, flags: dict[str, Any]) -> None:
        self._opening, self._flags = opening, flags
        self.library: Library = opening.library
        self.quiet: bool = flags["quiet"]
        self._conversation: Conversation | None = None
        self._failure: RwkvError | None = None
        self._keyboard: Keyboard | None = None
        self.figures = ""
        self.seconds_per_token: float | None = None
        self.leaving = self._interactive = False
        self.stats: bool = flags["verbose"]

    def run(self, first: str, documents: Prompt, *, interactive: bool) -> None:
        """Read what was given, send the first message, then read more until the user leaves."""
        self._interactive = interactive
        for name in documents.files:
            self.attach(name)
        if documents.piped:
            self._attach(Prompt(piped=documents.piped), "stdin")
        prefill = self._flags["prefill"] or ""
        if first and self.answer(first, prefill) == INTERRUPT and not interactive:
            raise Interrupted
        if interactive:
            self._talk(greet=not first)
        self._farewell()

    def _talk(self, *, greet: bool) -> None:
        """Read messages and commands until the user leaves."""
        from rwkv_cli.render.prompting import Keyboard

        history = None if self._flags["no_save"] else data_folder() / "history"
        words = {name: command.help for name, command in COMMANDS.items()}
        self._keyboard = keyboard = Keyboard(words, history, quiet=self.quiet)
        if greet and not self.quiet:
            name = safe(self._opening.loading.name)
            note(dim(f"{name} · /help lists the commands · Ctrl-C stops an answer · Ctrl-D leaves"))
            self._show_resumed()
        with keyboard.undisturbed():
            while not self.leaving and (line := keyboard.read()) is not None:
                self._handle(line.strip())

    def _handle(self, line: str) -> None:
        """Do what a line asks for; an error costs only the line, unless it leaves no model."""
        try:
            self._do(line)
        except RwkvError as error:
            if error is self._failure:
                raise
            note(f"rwkv: {safe(error.message)}")
            if error.hint:
                note(f"  {safe(error.hint)}")
        except KeyboardInterrupt:
            note(dim("interrupted; nothing was changed"))

    def _do(self, line: str) -> None:
        if line.lower() in _LEAVE:
            self.leaving = True
        elif line.startswith("//"):
            self.answer(line[1:])
        elif match := _COMMAND.fullmatch(line):
            obey(self, match[1].lower(), (match[2] or "").strip())
        elif line in OLD_WORDS:
            note(dim(f"{line} is /{OLD_WORDS[line]} here"))
            obey(self, OLD_WORDS[line], "")
        elif line:
            self.answer(line)

    @property
    def conversation(self) -> Conversation:
        """The conversation; the first use waits for the model."""
        if self._conversation is None:
            try:
                self._conversation = self._opening.conversation(quiet=self.quiet)
            except RwkvError as error:
                self._failure = error
                raise
        return self._conversation

    # What commands ask for

    def answer(self, message: str, prefill: str = "") -> str | None:
        """Send a message, show the answer, keep the turn; tell why the answer ended."""
        conversation = self.conversation
        with self.reading() as progress:
            reply = conversation.ask(message, progress=progress, prefill=prefill)
        return self.show(reply)

    def show(self, reply: Reply) -> str | None:
        """Show an answer as it comes; tell why it ended."""
        began = time.monotonic()
        with interruptible(reply.generation) as interrupts:
            try:
                self._write(reply)
            except StorageError as error:
                if self._opening.unsaved:
                    raise StorageError(error.message, hint=_UNSAVED) from error
                raise
            seconds = time.monotonic() - began
        count, state = reply.generation.count, reply.generation.state
        read = f"read {reply.read}" + (f", {reply.cached} cached" if reply.cached else "")
        self.figures = (
            f"{counted(count, 'token')} · {speed(count, seconds)} · {read}\n"
            f"{counted(state.position, 'token')} so far · state {state.nbytes / 1e6:.1f} MB"
        )
        if self.stats and not self.quiet:
            note(dim(self.figures))
        if interrupts.terminated:
            raise Terminated
        return reply.generation.finish

    def attach(self, name: str) -> None:
        """Read a file as the beginning of the next message."""
        self._attach(Prompt(files=(name,)), name)

    def _attach(self, document: Prompt, name: str) -> None:
        with self.reading() as progress:
            turn = self.conversation.attach(name, document.document(), progress)
        if not self.quiet:
            note(dim(f"{safe(name)}: {counted(len(turn.prompt), 'token')} read; ask about it"))

    def begin_anew(self, system: str) -> None:
        """Begin another conversation; this one stays where it is."""
        self._conversation = self._opening.anew(self.conversation, system)

    def fork(self, name: str) -> None:
        """Go on in a copy of the conversation."""
        self._conversation = self._opening.copy(self.conversation)
        if name:
            self._conversation.log.rename(name)

    def switch(self, log: ChatLog) -> None:
        """Go on with another conversation."""
        self._conversation = self._opening.resumed(self.conversation.model, log)
        self.show_last()

    def change_model(self, name: str) -> None:
        """Go on in a copy of the conversation with another model."""
        with self.reading() as progress:
            self._conversation = self._opening.with_model(self.conversation, name, progress)
        note(dim(f"{safe(self._conversation.model.name)} answers from here, in a copy"))

    def type_again(self, text: str) -> str | None:
        """Let the user change a text; None when they would rather not."""
        if self._keyboard is None:
            raise UsageError("there is no keyboard to edit with")
        return self._keyboard.read(text, "edit> ")

    def choose(self, count: int) -> int:
        """Let the user choose one of several answers; the first when they would rather not."""
        while self._keyboard is not None:
            line = (self._keyboard.read("", f"1-{count}> ") or "1").strip()
            if line.isdecimal() and 1 <= int(line[:6]) <= count:
                return int(line) - 1
            note(f"a number from 1 to {count}; Ctrl-D takes the first")
        return 0

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], None]]:
        """Show how far reading is, when it takes long."""
        began, last = time.monotonic(), 0
        progress = Progress("reading", "tokens", None, enabled=not self.quiet)

        def update(count: int) -> None:
            nonlocal last
            last = count
            progress.update(count)

        try:
            yield update
        finally:
            progress.finish()
        if last >= 64:  # fewer tell more about the start than about the speed
            self.seconds_per_token = (time.monotonic() - began) / last

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int], None]]:
        """Show how many tokens there are, when it takes long."""
        progress = Progress(what, "tokens", None, enabled=not self.quiet)
        try:
            yield progress.update
        finally:
            progress.finish()

    def show_last(self) -> None:
        """Remind of what was said last."""
        self._remind(self.conversation.turns[-1:])

    # How things look

    def _write(self, reply: Reply) -> None:
        """Write an answer as it comes."""
        sink = stdout_sink()
        try:
            for data in reply:
                sink.write(data)
            if self._interactive and not is_terminal(STDOUT):
                sink.write(b"\n")  # more answers follow; a terminal's sink ends its lines itself
        finally:
            sink.close()
        if self.quiet:
            return
        if reply.generation.finish == INTERRUPT:
            note(dim("stopped; what there is of the answer is kept, /continue goes on with it"))
        elif reply.generation.finish == LENGTH:
            cut = f"cut at {reply.generation.count} tokens"
            note(dim(f"{cut}; /continue goes on, -N or /set max_tokens allows more"))

    def _show_resumed(self) -> None:
        """Remind of the conversation that is continued; its model may still be on its way."""
        log = self._opening.log
        if self._opening.is_resumed and log.tree.turns:
            turns = len(log.tree.path())
            if turns:
                position = log.tree.position()
                words = f"{counted(turns, 'turn')}, {position:,} tokens, nothing read again"
                note(dim(f"continuing {log.id}: {words}"))
            self._remind(log.tree.path()[-1:])

    def _remind(self, turns: list[Turn]) -> None:
        if not turns or self.quiet:
            return
        if turns[-1].finish == OPEN:
            note(dim(f"attached: {safe(turns[-1].user)}"))
            return
        note(dim(f"> {_first_line(turns[-1].user)}"))
        sink = stdout_sink()
        sink.write(turns[-1].answer.strip().encode("utf-8", "replace"))
        sink.close()

    def _farewell(self) -> None:
        """Say how to go on, or that something could not be kept.

        Raises:
            StorageError: Turns are only in memory.
        """
        if self._opening.unsaved:
            raise StorageError("the last turns could not be saved")
        saved = self._opening.saved_id
        if saved and not self.quiet:
            note(dim(f"saved; go on with: rwkv chat -c   (or -r {saved})"))


def _first_line(text: str) -> str:
    """Give the beginning of a message, as much as fits a line."""
    line, *more = text.strip().split("\n")
    return safe(line[:72]) + (" …" if more or len(line) > 72 else "")
