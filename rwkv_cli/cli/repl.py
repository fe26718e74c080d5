"""The chat loop: messages and commands in, answers out, a commit after every turn."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from rwkv_cli.cli.app import Interrupted, Terminated
from rwkv_cli.cli.loading import Loading, drawing, interruptible
from rwkv_cli.cli.settings import Settings
from rwkv_cli.cli.slash import COMMANDS, obey
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import RwkvError, StorageError, UsageError
from rwkv_cli.generation import INTERRUPT, LENGTH
from rwkv_cli.places import data_folder
from rwkv_cli.render.progress import Progress, counted, dim, speed
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDOUT, is_terminal, note, stdout_sink
from rwkv_cli.session import Conversation, Manner, Reply, describe_turns
from rwkv_cli.store import Chat, make_private, new_chat
from rwkv_cli.text.templates import load_template

_COMMAND = re.compile(r"/([A-Za-z?]+)(?:\s+(.*))?", re.DOTALL)
_LEAVE = {"exit", "quit", "bye", ":q"}


class Repl:
    """A conversation at a terminal, or one message from a pipe.

    Args:
        settings: What is set.
        flags: What the command line says.
        place: Where the conversation is kept.
        model: The model that answers, or is on its way.

    Attributes:
        leaving: Whether the loop shall end.
        stats: Whether figures follow every answer.
        figures: Those of the last answer.
    """

    def __init__(
        self, settings: Settings, flags: dict[str, Any], place: Chat, model: Loading
    ) -> None:
        self._settings, self._flags, self._loading = settings, flags, model
        self._saved = place if flags["resume"] else None
        self._place = None if flags["no_save"] else place
        self._quiet: bool = flags["quiet"]
        self._conversation: Conversation | None = None
        self._failure: RwkvError | None = None
        self.figures = ""
        self.leaving = self._interactive = False
        self.stats: bool = flags["verbose"]

    def run(self, first: str, *, interactive: bool) -> None:
        """Send the first message, if there is one, then read more until the user leaves."""
        self._interactive = interactive
        if first and self.answer(first) == INTERRUPT and not interactive:
            raise Interrupted
        if interactive:
            self._talk(greet=not first)
        self._farewell()

    def _talk(self, *, greet: bool) -> None:
        """Read messages and commands until the user leaves."""
        from rwkv_cli.render.prompting import Keyboard

        history = None if self._flags["no_save"] else data_folder() / "history"
        keyboard = Keyboard({n: row[2] for n, row in COMMANDS.items()}, history, quiet=self._quiet)
        if greet and not self._quiet:
            name = safe(self._loading.name)
            note(dim(f"{name} · /help lists the commands · Ctrl-C stops an answer · Ctrl-D leaves"))
        if greet and self._saved is not None:
            self._show_last()
        with keyboard.undisturbed():
            while not self.leaving and (line := keyboard.read()) is not None:
                self._handle(line.strip())

    def _handle(self, line: str) -> None:
        """Do what a line asks for; an error costs only the line, unless it leaves no model."""
        try:
            if line.lower() in _LEAVE:
                self.leaving = True
            elif line.startswith("//"):
                self.answer(line[1:])
            elif match := _COMMAND.fullmatch(line):
                obey(self, match[1].lower(), (match[2] or "").strip())
            elif line:
                self.answer(line)
        except RwkvError as error:
            if error is self._failure:
                raise
            note(f"rwkv: {safe(error.message)}")
            if error.hint:
                note(f"  {safe(error.hint)}")
        except KeyboardInterrupt:
            note(dim("interrupted; nothing was changed"))

    @property
    def conversation(self) -> Conversation:
        """The conversation; the first use waits for the model."""
        if self._conversation is None:
            try:
                self._conversation = self._begin(self._loading.result(quiet=self._quiet))
            except RwkvError as error:
                self._failure = error
                raise
        return self._conversation

    def _begin(self, model: Model) -> Conversation:
        """Start a conversation, or take up the saved one; flags overrule what was saved."""
        settings, state = self._settings, None
        if self._saved is not None:
            state = self._saved.newest(model.load_state, lambda text: note(f"rwkv: {safe(text)}"))
        template = load_template(settings.template or _template_of(state) or model.template)
        template.turn("", settings.think)
        sampling, randomness = drawing(settings, self._flags["ban"], model, state, template.name)
        manner = Manner(sampling, randomness, settings.max_tokens or 4096, settings.think)
        conversation = Conversation(model, template, manner, system=settings.system or "")
        if state is not None:
            conversation.resume(state)
        return conversation

    def _show_last(self) -> None:
        """Remind of where the conversation was."""
        turns = self.conversation.turns
        if not turns or self._quiet:
            return
        position = self.conversation.state.position
        note(dim(f"continuing: {describe_turns(turns)}, {position:,} tokens, nothing read again"))
        note(dim(f"> {_first_line(turns[-1].user)}"))
        sink = stdout_sink()
        sink.write(turns[-1].answer.strip().encode("utf-8", "replace"))
        sink.close()

    def answer(self, message: str) -> str | None:
        """Send a message, show the answer, keep the turn; tell why the answer ended."""
        conversation = self.conversation
        began = time.monotonic()
        progress = Progress("reading", "tokens", None, enabled=not self._quiet)
        try:
            reply = conversation.ask(message, progress.update)
        finally:
            progress.finish()
        read_s, began = time.monotonic() - began, time.monotonic()
        with interruptible(reply.generation) as interrupts:
            self._show(reply)
            seconds = time.monotonic() - began
            self.commit()
        count, state = reply.generation.count, conversation.state
        self.figures = (
            f"{counted(count, 'token')} · {speed(count, seconds)} · "
            f"read {reply.read} in {read_s:.2f} s\n"
            f"{counted(state.position, 'token')} so far · state {state.nbytes / 1e6:.1f} MB"
        )
        if self.stats and not self._quiet:
            note(dim(self.figures))
        if interrupts.terminated:
            raise Terminated
        return reply.generation.finish

    def _show(self, reply: Reply) -> None:
        """Write an answer as it comes."""
        sink = stdout_sink()
        try:
            for data in reply:
                sink.write(data)
            if self._interactive and not is_terminal(STDOUT):
                sink.write(b"\n")  # more answers follow; a terminal's sink ends its lines itself
        finally:
            sink.close()
        if self._quiet:
            return
        if reply.generation.finish == INTERRUPT:
            note(dim("stopped; what there is of the answer is kept"))
        elif reply.generation.finish == LENGTH:
            note(dim(f"cut at {reply.generation.count} tokens; -N or /set max_tokens allows more"))

    def commit(self) -> None:
        """Keep the conversation as it is now.

        Raises:
            StorageError: The disk refused.
        """
        if self._place is None:
            return
        try:
            make_private(data_folder())
            gone_on = not self._place.commit(self.conversation.snapshot())
        except StorageError as error:
            hint = "the conversation goes on unsaved; --no-save says so from the beginning"
            raise StorageError(error.message, hint=hint) from error
        if gone_on:
            note(dim("this conversation went on elsewhere; yours is kept as its own from here"))

    def _farewell(self) -> None:
        if self._place is not None and self._place.number and not self._quiet:
            note(dim("saved; go on with: rwkv chat --continue"))

    def begin_anew(self, system: str) -> None:
        """Begin another conversation; this one stays where it is."""
        self.conversation.restart(system)
        if self._place is not None:
            self._place = new_chat(self._place.folder.parent)

    def take_back(self, count: int) -> str:
        """Take back turns: the message of the first of them.

        Raises:
            UsageError: There are not so many.
        """
        progress = Progress("reading again", "tokens", None, enabled=not self._quiet)
        try:
            return self.conversation.undo(count, progress.update)[0].user
        finally:
            progress.finish()


def _template_of(state: State | None) -> str | None:
    """Tell which format a saved conversation is written in; None when it does not say."""
    try:
        name = json.loads(state.attachments.transcript)["template"] if state else None
        return load_template(name).name if name else None
    except (ValueError, KeyError, TypeError, RecursionError, UsageError):
        return None


def _first_line(text: str) -> str:
    """Give the beginning of a message, as much as fits a line."""
    line, *more = text.strip().split("\n")
    return safe(line[:72]) + (" …" if more or len(line) > 72 else "")
