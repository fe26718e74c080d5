"""The chat loop: messages and commands in, answers out, a commit after every turn."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rwkv_cli.cli.app import Terminated
from rwkv_cli.cli.loading import interruptible
from rwkv_cli.cli.settings import Settings
from rwkv_cli.engine.model import Model
from rwkv_cli.errors import RwkvError, UsageError
from rwkv_cli.generation import Randomness, saved_sampler
from rwkv_cli.places import data_folder
from rwkv_cli.render.progress import Progress, dim, speed
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note, stdout_sink
from rwkv_cli.session import Conversation, Manner, Reply, describe_turns
from rwkv_cli.store import Chat
from rwkv_cli.text.templates import load_template

_COMMAND = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.DOTALL)
_LEAVE = {"exit", "quit", "bye", ":q"}
_SETTABLE = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "presence": float,
    "frequency": float,
    "penalty_decay": float,
    "max_tokens": int,
    "seed": int,
    "think": str,
}


class Repl:
    """A conversation at a terminal, or one message from a pipe."""

    def __init__(
        self,
        settings: Settings,
        flags: dict[str, Any],
        place: Chat | None,
        model: Callable[[], Model],
    ) -> None:
        self._settings, self._flags, self._place = settings, flags, place
        self._model = model
        self._conversation: Conversation | None = None
        self._figures = ""
        self._leaving = False
        self._stats = False

    def run(self, first: str, *, interactive: bool) -> None:
        """Send the first message, if there is one, then read more until the user leaves."""
        if first:
            self._answer(first)
        if not interactive:
            self._farewell()
            return
        from rwkv_cli.render.prompting import Keyboard

        history = None if self._flags["no_save"] else data_folder() / "history"
        keyboard = Keyboard(sorted(COMMANDS), history)
        if not first and not self._flags["quiet"]:
            note(dim("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves"))
        if self._flags["resume"]:
            self._show_last()
        while not self._leaving and (line := keyboard.read()) is not None:
            self._handle(line.strip())
        self._farewell()

    def _handle(self, line: str) -> None:
        """Do what a line asks for; an error costs nothing but the line."""
        try:
            if line.lower() in _LEAVE:
                self._leaving = True
            elif line.startswith("//"):
                self._answer(line[1:])
            elif match := _COMMAND.fullmatch(line):
                self._command(match[1], (match[2] or "").strip())
            elif line:
                self._answer(line)
        except RwkvError as error:
            note(f"rwkv: {safe(error.message)}")
            if error.hint:
                note(f"  {safe(error.hint)}")
        except KeyboardInterrupt:
            note(dim("interrupted; nothing was changed"))

    def _command(self, name: str, argument: str) -> None:
        name = _ALIASES.get(name, name)
        if name not in COMMANDS:
            close = difflib.get_close_matches(name, COMMANDS, n=1)
            guess = f"did you mean /{close[0]}?" if close else "/help lists the commands"
            raise UsageError(f"no such command: /{name}", hint=f"{guess} (// sends a slash)")
        COMMANDS[name][0](self, argument)

    @property
    def conversation(self) -> Conversation:
        """The conversation; the first use waits for the model."""
        if self._conversation is None:
            self._conversation = self._begin(self._model())
        return self._conversation

    def _begin(self, model: Model) -> Conversation:
        """Start a conversation, or take up the saved one; flags overrule what was saved."""
        settings = self._settings
        template = load_template(settings.template or model.template)
        manner = Manner(settings.sampling(template.name), Randomness(settings.seed_or_random()))
        manner = replace(manner, think=settings.think, max_tokens=settings.max_tokens or 4096)
        conversation = Conversation(model, template, manner, system=settings.system or "")
        if self._flags["resume"] and self._place is not None:
            state = self._place.newest(model.load_state, lambda text: note(f"rwkv: {safe(text)}"))
            conversation.resume(state)
            if saved := saved_sampler(state.attachments):
                sampling = settings.sampling(template.name, saved[0])
                place = saved[1] if settings.seed is None else manner.randomness
                conversation.manner = replace(manner, sampling=sampling, randomness=place)
        return conversation

    def _show_last(self) -> None:
        """Remind of where the conversation was."""
        turns = self.conversation.turns
        if not turns or self._flags["quiet"]:
            return
        position = self.conversation.state.position
        note(dim(f"continuing: {describe_turns(turns)}, {position:,} tokens, nothing read again"))
        sink = stdout_sink()
        note(dim(f"> {safe(turns[-1].user)}"))
        sink.write(turns[-1].answer.strip().encode("utf-8", "replace"))
        sink.write(b"\n")

    def _answer(self, message: str) -> None:
        """Send a message, show the answer, keep the turn."""
        conversation = self.conversation
        began = time.monotonic()
        progress = Progress("reading", "tokens", None, enabled=not self._flags["quiet"])
        try:
            reply = conversation.ask(message, progress.update)
        finally:
            progress.finish()
        read_s, began = time.monotonic() - began, time.monotonic()
        terminated = self._show(reply)
        seconds = time.monotonic() - began
        count, position = reply.generation.count, conversation.state.position
        self._figures = (
            f"{count} tokens, {speed(count, seconds)}; read {reply.read} tokens in {read_s:.2f} s; "
            f"{position:,} tokens so far, state {conversation.state.nbytes / 1e6:.1f} MB"
        )
        self._commit()
        if self._stats and not self._flags["quiet"]:
            note(dim(self._figures))
        if terminated:
            raise Terminated

    def _show(self, reply: Reply) -> bool:
        """Write an answer as it comes: whether the process shall end."""
        sink = stdout_sink()
        try:
            with interruptible(reply.generation) as interrupts:
                for data in reply:
                    sink.write(data)
        finally:
            sink.close()
        if reply.generation.finish == "interrupt":
            note(dim("stopped; what there is of the answer is kept"))
        elif reply.generation.finish == "length":
            note(dim(f"stopped at {reply.generation.count} tokens; -N allows more"))
        return interrupts.terminated

    def _commit(self) -> None:
        """Keep the conversation as it is now."""
        if self._place is not None and not self._place.commit(self.conversation.snapshot()):
            note(dim("this conversation went on elsewhere; yours is kept as its own from here"))

    def _farewell(self) -> None:
        if self._place is not None and self._place.number and not self._flags["quiet"]:
            note(dim("saved; go on with: rwkv chat --continue"))

    def help(self, argument: str) -> None:
        """List the commands."""
        for name, (_, usage, text) in COMMANDS.items():
            shown = f"/{name} {usage}"
            note(f"  {shown:<18} {text}")
        note("  Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-D leaves")

    def exit(self, argument: str) -> None:
        """Leave."""
        self._leaving = True

    def new(self, argument: str) -> None:
        """Begin a new conversation; the old one stays where it is."""
        self.conversation.restart()
        if self._place is not None:
            from rwkv_cli.store import new_chat

            self._place = new_chat(self._place.folder.parent)
        note(dim("new conversation"))

    def retry(self, argument: str) -> None:
        """Answer the last message again, differently."""
        turn = self._take_back(1)
        self.conversation.vary()
        self._answer(turn.user)

    def undo(self, argument: str) -> None:
        """Take back turns."""
        if argument and not argument.isdecimal():
            raise UsageError(f"/undo takes a number of turns, not {argument!r}")
        count = int(argument or 1)
        self._take_back(count)
        self._commit()
        left = describe_turns(self.conversation.turns)
        note(dim(f"took back {count}; the conversation has {left}"))

    def _take_back(self, count: int) -> Any:
        progress = Progress("reading again", "tokens", None, enabled=not self._flags["quiet"])
        try:
            return self.conversation.undo(count, progress.update)[0]
        finally:
            progress.finish()

    def system(self, argument: str) -> None:
        """Show the system text, or set it, which begins a new conversation."""
        if not argument:
            note(safe(self.conversation.system) or dim("there is no system text"))
            return
        self.new("")
        self.conversation.restart("" if argument == "none" else argument)

    def set(self, argument: str) -> None:
        """Show or change how answers are made."""
        changes = dict(_setting(word) for word in argument.split())
        conversation, manner = self.conversation, self.conversation.manner
        if "seed" in changes:
            manner = replace(manner, randomness=Randomness(changes.pop("seed")))
        if "think" in changes:
            conversation.template.turn("", changes["think"])
        other = {k: changes.pop(k) for k in ("max_tokens", "think") if k in changes}
        sampling = manner.sampling.with_changes(**changes)
        conversation.manner = replace(manner, sampling=sampling, **other)
        self._show_settings()

    def _show_settings(self) -> None:
        manner = self.conversation.manner
        values = {**manner.sampling.to_json(), "max_tokens": manner.max_tokens}
        values |= {"think": manner.think or "default", "seed": manner.randomness.seed}
        note("  ".join(f"{k}={values[k]}" for k in _SETTABLE))

    def stats(self, argument: str) -> None:
        """Show the figures of the last answer, and from now on those of every answer."""
        self._stats = argument != "off"
        note(dim(self._figures or "no answer yet") if self._stats else dim("figures are off"))

    def save(self, argument: str) -> None:
        """Save the state to a file."""
        if not argument:
            raise UsageError("/save takes a file name, such as /save trip.rwkvstate")
        path = Path(argument).expanduser()
        self.conversation.snapshot().save(path)
        name = safe(str(path))
        note(dim(f"saved {name}; go on with: rwkv generate --state {name} --chat"))


def _setting(word: str) -> tuple[str, Any]:
    """Read one name=value.

    Raises:
        UsageError: It is none, or the name is unknown.
    """
    name, equals, value = word.partition("=")
    name = name.replace("-", "_")
    if not equals or name not in _SETTABLE:
        raise UsageError(f"{word!r} is no setting", hint=f"name=value with {', '.join(_SETTABLE)}")
    try:
        return name, _SETTABLE[name](value)
    except ValueError as error:
        raise UsageError(f"{name} must be a number, not {value!r}") from error


# Name to what it does, its argument, and the line in the help.
COMMANDS: dict[str, tuple[Callable[[Repl, str], None], str, str]] = {
    "help": (Repl.help, "", "this list"),
    "exit": (Repl.exit, "", "leave; the conversation is kept"),
    "new": (Repl.new, "", "begin a new conversation"),
    "retry": (Repl.retry, "", "another answer to your last message"),
    "undo": (Repl.undo, "[N]", "take back the last turn, or the last N"),
    "system": (Repl.system, "TEXT", "set the system text and begin anew; 'none' removes it"),
    "set": (
        Repl.set,
        "NAME=VALUE",
        "temperature=0.7, top_p, max_tokens, seed, ...; alone it shows them",
    ),
    "stats": (Repl.stats, "[off]", "figures of the answers: speed, tokens, state"),
    "save": (Repl.save, "FILE", "save the state to a file"),
}
_ALIASES = {
    "quit": "exit", "bye": "exit", "q": "exit", "clear": "new", "reset": "new", "regen": "retry",
    "regenerate": "retry", "h": "help", "?": "help",
}  # fmt: skip
