"""The chat loop: messages and commands in, answers out, and every turn kept before the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rwkv_cli.cli.app import Interrupted, Terminated
from rwkv_cli.cli.conversing import Opening
from rwkv_cli.cli.prompt import Prompt
from rwkv_cli.cli.screen import Screen, fitted
from rwkv_cli.cli.slash import COMMANDS, OLD_WORDS, PATHS, obey, words_for
from rwkv_cli.cli.slash.command import number_in
from rwkv_cli.errors import RwkvError, StorageError, UsageError
from rwkv_cli.files import reason
from rwkv_cli.generation import INTERRUPT
from rwkv_cli.places import data_folder
from rwkv_cli.render.progress import counted
from rwkv_cli.render.sanitize import Sanitizer, safe
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.session import Conversation, Reply
from rwkv_cli.session.log import END
from rwkv_cli.tree import Turn

if TYPE_CHECKING:
    from rwkv_cli.render.prompting import Keyboard
    from rwkv_cli.store.chatlog import ChatLog
    from rwkv_cli.store.library import Library
    from rwkv_cli.store.records import Begin

_COMMAND = re.compile(r"/([A-Za-z?]+)(?:\s+(.*))?", re.DOTALL)
_UNSAVED = "the conversation goes on in memory, and the next turn tries to save it again; "
_NO_SAVE = "--no-save leaves nothing on the disk from the beginning"
_LEAVE = {"exit", "quit", "bye", ":q"}


class Repl:
    """A conversation at a terminal, or one message from a pipe.

    Args:
        opening: Begins the conversation when its model is there.
        flags: What the command line says.
        interactive: Whether messages are read from a terminal.

    Attributes:
        library: All conversations.
        screen: Where everything is shown.
        keyboard: Where messages come from; None before the first is read.
        leaving: Whether the loop shall end.
    """

    def __init__(self, opening: Opening, flags: dict[str, Any], *, interactive: bool) -> None:
        self._opening, self._flags = opening, flags
        self.library: Library = opening.library
        quiet, verbose = flags["quiet"], flags["verbose"]
        self.screen = Screen(quiet=quiet, interactive=interactive, verbose=verbose)
        self._conversation: Conversation | None = None
        self._failure: RwkvError | None = None
        self.keyboard: Keyboard | None = None
        self.leaving, self._interactive = False, interactive

    def run(self, first: str, documents: Prompt) -> None:
        """Read what was given, send the first message, then read more until the user leaves."""
        if self._interactive:
            self._attempt(lambda: self._begin(first, documents))
            self._talk(greet=not first)
        elif self._begin(first, documents) == INTERRUPT:
            raise Interrupted
        self._farewell()

    def _begin(self, first: str, documents: Prompt) -> str | None:
        """Read what was given, and send the first message; tell why its answer ended."""
        for name in documents.files:
            self.read_in(name, replace(documents, files=(name,), piped=b"").document())
        if documents.piped:
            self.read_in("stdin", replace(documents, files=()).document())
        return self.answer(first, self._flags["prefill"] or "") if first else None

    def _talk(self, *, greet: bool) -> None:
        """Read messages and commands until the user leaves."""
        from rwkv_cli.render.prompting import Keyboard

        self.keyboard = keyboard = Keyboard(
            {name: command.help for name, command in COMMANDS.items()},
            self._words,
            PATHS,
            history=None if self._flags["no_save"] else data_folder() / "history",
            status=lambda: self._opening.loading.status,
            quiet=self.screen.quiet,
        )
        if greet and not self.screen.quiet:
            name = safe(self._opening.loading.name)
            keys = ["/help lists the commands", "Ctrl-D leaves", "Ctrl-C stops an answer"]
            note(dim(fitted([name, *keys])))
            self._show_resumed()
        with keyboard.undisturbed():
            while not self.leaving and (line := keyboard.read()) is not None:
                self._attempt(partial(self._do, line.strip()))

    def _words(self, name: str) -> Sequence[str]:
        """Give what may follow a command, as far as that is known without waiting for the model."""
        return words_for(self, name) if self._conversation is not None else ()

    def _attempt(self, action: Callable[[], object]) -> None:
        """Do something; an error costs only this, unless it leaves no model."""
        try:
            action()
        except RwkvError as error:
            if error is self._failure:
                raise
            note(f"rwkv: {safe(error.message)}")
            if error.hint:
                note(f"  {safe(error.hint)}")
        except BrokenPipeError:
            raise
        except OSError as error:
            note(f"rwkv: {safe(reason(error))}")
        except KeyboardInterrupt:
            note(dim("interrupted; nothing was changed"))

    def _do(self, line: str) -> None:
        if line.lower() in _LEAVE:
            self.leaving = True
        elif line == "/":
            obey(self, "help", "")
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
                self._conversation = self._opening.conversation(quiet=self.screen.quiet)
            except RwkvError as error:
                self._failure = error
                raise
            self._give_name(self._conversation)
        return self._conversation

    def _give_name(self, conversation: Conversation) -> None:
        """Call the conversation what the command line says."""
        if self._flags["name"]:
            try:
                conversation.log.rename(self._flags["name"])
            except StorageError as error:  # the turns will say so too
                note(f"rwkv: {safe(error.message)}")

    # What commands ask for

    @property
    def begin(self) -> Begin:
        """How the conversation began; waits for the model, before which nothing has."""
        _ = self.conversation
        begin = self._opening.log.begin
        assert begin is not None
        return begin

    def answer(self, message: str, prefill: str = "") -> str | None:
        """Send a message, show the answer, keep the turn; tell why the answer ended."""
        conversation = self.conversation
        with self.screen.reading() as progress:
            reply = conversation.ask(message, progress=progress, prefill=prefill)
        return self.show(reply)

    def show(self, reply: Reply) -> str | None:
        """Show an answer as it comes; tell why it ended."""
        with self.saving():
            interrupts = self.screen.answer(reply)
        if interrupts.terminated:
            raise Terminated
        return reply.generation.finish

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Say, when the disk refuses, that what was said is not lost yet."""
        try:
            yield
        except StorageError as error:
            if not self._opening.unsaved:
                raise
            hint = _UNSAVED + _NO_SAVE if self._interactive else _NO_SAVE
            raise StorageError(error.message, hint=hint) from error

    def attach(self, name: str) -> None:
        """Read a file as the beginning of the next message."""
        self.read_in(name, Prompt(files=(name,)).document())

    def read_in(self, name: str, pieces: Iterable[bytes]) -> None:
        """Read material as the beginning of the next message."""
        with self.saving(), self.screen.reading() as progress:
            turn, cached = self.conversation.attach(name, pieces, progress)
        if not self.screen.quiet:
            known = f" ({cached:,} of them were known)" if cached else ""
            tokens = counted(len(turn.prompt), "token")
            note(dim(f"{safe(name)}: {tokens} read{known}; ask about it"))

    def begin_anew(self, system: str) -> None:
        """Begin another conversation; this one stays where it is."""
        with self.saving():
            self._conversation = self._opening.anew(self.conversation, system)

    def fork(self, name: str) -> None:
        """Go on in a copy of the conversation."""
        if self._flags["no_save"]:
            raise UsageError("nothing is saved here that could be copied", hint="/goto goes back")
        with self.saving():
            self._conversation = self._opening.copy(self.conversation)
            if name:
                self._conversation.log.rename(name)

    def switch(self, log: ChatLog) -> None:
        """Go on with another conversation."""
        with self.saving():
            self._conversation = self._opening.resumed(self.conversation.model, log)
        self.show_last()

    def change_model(self, name: str) -> None:
        """Go on in a copy of the conversation with another model."""
        with self.saving(), self.screen.reading() as progress:
            self._conversation = self._opening.with_model(self.conversation, name, progress)
        note(dim(f"{safe(self._conversation.model.name)} answers from here, in a copy"))

    def type_in(self, text: str, prompt: str) -> str | None:
        """Let the user write or change a text; None when they would rather not."""
        if self.keyboard is None:
            raise UsageError("there is no keyboard to write with")
        return self.keyboard.read(Sanitizer().feed(text), prompt)

    def choose(self, count: int) -> int | None:
        """Let the user choose one of several answers; None when they would rather not."""
        while self.keyboard is not None:
            line = self.keyboard.read("", f"1-{count}> ")
            if line is None:
                return None
            if number := number_in(line.strip(), 1, count):
                return number - 1
            note(f"a number from 1 to {count}; Ctrl-D takes none")
        return 0

    def show_last(self) -> None:
        """Remind of what was said last."""
        self._remind(self.conversation.turns[-1:])

    # What is said around it

    def _show_resumed(self) -> None:
        """Remind of the conversation that is continued; its model may still be on its way."""
        log = self._opening.log
        if self._opening.is_resumed and log.tree.turns:
            turns = len(log.tree.path())
            if turns:
                position = log.tree.position()
                held = (log.tree.head, END) in log.held()
                again = "nothing is read again" if held else "its state is made again"
                words = f"{counted(turns, 'turn')}, {position:,} tokens, {again}"
                note(dim(f"continuing {log.id}: {words}"))
            self._remind(log.tree.path()[-1:])

    def _remind(self, turns: list[Turn]) -> None:
        if turns and not self.screen.quiet:
            self.screen.past(turns[-1])

    def _farewell(self) -> None:
        """Say how to go on, or that something could not be kept.

        Raises:
            StorageError: Turns are only in memory.
        """
        if self._opening.unsaved:
            raise StorageError("the last turns could not be saved")
        saved = self._opening.saved_id
        if saved and not self.screen.quiet:
            note(dim(f"saved; go on with: rwkv chat -c   (or -r {saved})"))
