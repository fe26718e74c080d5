"""The command line: finds the command, runs it, and turns every error into one sentence and an
exit code.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import click

from rwkv_cli.cli.importing import import_quickly
from rwkv_cli.cli.options import help_option, version_option
from rwkv_cli.errors import LimitError, PointedError, RwkvError, StorageError, UsageError
from rwkv_cli.files import reason
from rwkv_cli.render.pointing import pointed
from rwkv_cli.render.sanitize import safe, safe_lines
from rwkv_cli.render.streams import note, occupy_closed_streams, silence_stdout

# Command to module and the line about it in the help; the function there has the command's name.
COMMANDS = {
    "chat": ("rwkv_cli.cli.chat", "Talk with a model; the conversation is kept."),
    "generate": ("rwkv_cli.cli.generate", "Continue a text, or answer a question about one."),
    "chats": ("rwkv_cli.cli.chats", "List, show, search and export conversations."),
    "state": ("rwkv_cli.cli.state", "Keep, feed and inspect saved states."),
    "info": ("rwkv_cli.cli.info", "Tell what a weights or state file is."),
    "bench": ("rwkv_cli.cli.bench", "Measure how fast a model runs here."),
    "download": ("rwkv_cli.cli.download", "Fetch a published model, by name or from anywhere."),
    "models": ("rwkv_cli.cli.models", "List, name, check and remove models."),
    "convert": ("rwkv_cli.cli.convert", "Write a model in another format or precision."),
    "cache": ("rwkv_cli.cli.cache", "List packed weights that are kept, or delete them."),
    "config": ("rwkv_cli.cli.config", "Show the settings, and set them."),
    "doctor": ("rwkv_cli.cli.doctor", "Tell what this installation runs with; build the library."),
    "completion": ("rwkv_cli.cli.completion", "Print a completion script for your shell."),
}
ALIASES = {"gen": "generate", "pull": "download"}

# Words people try that mean something else here.
_INSTEAD = {
    "run": "to talk with a model: rwkv chat",
    "ask": 'to ask one question: rwkv generate --chat "your question"',
    "list": "to list models: rwkv models",
    "ls": "to list models: rwkv models",
}

_EPILOG = """\b
Try:
  rwkv generate "Once upon a time"
  cat notes.txt | rwkv generate "Summarize this."
  rwkv chat

rwkv COMMAND --help tells more about a command.
"""
_PAGE_WIDTH = 80  # the same on every terminal: the pages are made when the program is built

SIGTERM_STATUS, SIGINT_STATUS, SIGPIPE_STATUS = 143, 130, 141


class Terminated(BaseException):
    """The process was asked to end (SIGTERM, SIGHUP)."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended the work, and what existed was kept."""


class Commands(click.Group):
    """The group of all commands; a command's module is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(import_quickly(COMMANDS[name][0]), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a line, or suggest one."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            close = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
            guess = f"did you mean rwkv {close[0]}?" if close else "rwkv --help lists the commands"
            raise UsageError(f"no such command: {name!r}", hint=_INSTEAD.get(name, guess))
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def program() -> click.Group:
    """Build the command line as click knows it."""
    group = Commands(
        "rwkv",
        help="Talk to and generate with RWKV language models.",
        epilog=_EPILOG,
        context_settings={"terminal_width": _PAGE_WIDTH},
    )
    return version_option(help_option(group))


def run(arguments: Sequence[str]) -> int:
    """Run a command line: the exit code. Everything a user can cause is one sentence on stderr."""
    occupy_closed_streams()
    if not arguments:
        arguments = ["--help"]
    elif arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"]
    with _ending_on_signals():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    """Run a command and say what became of it."""
    try:
        _check_folder()
        # Not group.main(): it would turn a closed pipe into an exit of its own.
        group = program()
        with group.make_context("rwkv", list(arguments)) as context:
            group.invoke(context)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return SIGINT_STATUS
    except Terminated:
        return SIGTERM_STATUS
    except BrokenPipeError:
        silence_stdout()
        return SIGPIPE_STATUS
    except Exception as error:
        return fail(*_explained(error), arguments)
    return 0


def _explained(error: Exception) -> tuple[str, str | None, int]:
    """Say what went wrong, what to do, and the exit code."""
    if isinstance(error, RwkvError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, click.ClickException):
        return (*_misuse(error), UsageError.exit_code)
    if isinstance(error, MemoryError):
        return "there is not enough memory", None, LimitError.exit_code
    if isinstance(error, OSError):
        what = f"{error.filename}: {reason(error)}" if error.filename else reason(error)
        return what, None, StorageError.exit_code
    if isinstance(error, ImportError):
        what = f"a part of the installation cannot be loaded: {error}"
        return what, "install rwkv-cli again", StorageError.exit_code
    what = f"this is a bug in rwkv: {type(error).__name__}: {error}"
    return what, "run it again with --debug and report what it prints", RwkvError.exit_code


def _check_folder() -> None:
    """Refuse to work in a folder that was deleted: no path means anything there.

    Raises:
        StorageError: It was.
    """
    try:
        os.getcwd()  # noqa: PTH109 - nothing else is wanted of it
    except OSError as error:
        raise StorageError("the current folder is gone", hint="cd to another one") from error


def _misuse(error: click.ClickException) -> tuple[str, str | None]:
    """Put a complaint of click's into our words: what is wrong, and what to do."""
    context: click.Context | None = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else None
    if isinstance(error, click.NoSuchOption):
        if close := difflib.get_close_matches(error.option_name, error.possibilities or (), n=1):
            hint = f"did you mean {close[0]}?"
        elif context and context.parent is None:
            hint = "options come after the command, as in: rwkv generate -m demo hi"
        return f"no such option: {error.option_name}", hint
    message = " ".join(error.format_message().split()).rstrip(".")
    return message[:1].lower() + message[1:], hint


def fail(message: str, hint: str | None, code: int, arguments: Sequence[str]) -> int:
    """Show an error; with --debug its traceback as well."""
    if "--debug" in arguments and sys.exc_info()[0] is not None:
        import traceback

        note(safe_lines(traceback.format_exc()))
    note(f"rwkv: {safe(message)}")
    error = sys.exc_info()[1]
    if isinstance(error, PointedError):
        for line in pointed(error.text, error.span):
            note(f"  {line}")
    if hint:
        note(f"  {safe(hint)}")
    return code


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """While this lasts, a request to end unwinds the program, so that what exists is kept."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(code: int) -> int:
    """End quickly: everything that matters is written, and tearing down torch takes time."""
    for stream in (sys.stderr, sys.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.flush()
    os._exit(code)
