"""The command line: finds the command, runs it, and turns every error into one sentence and an
exit code.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

import click

from rwkv_cli.errors import RwkvError, UsageError
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note, silence_stdout
from rwkv_cli.version import __version__

# Command to module and the line about it in the help; the function there has the command's name.
COMMANDS = {
    "chat": ("rwkv_cli.cli.chat", "Talk with a model; the conversation is kept."),
    "generate": ("rwkv_cli.cli.generate", "Continue a text, or answer a question about one."),
    "info": ("rwkv_cli.cli.info", "Tell what a weights or state file is."),
    "models": ("rwkv_cli.cli.models", "List the models that -m knows by name."),
    "completion": ("rwkv_cli.cli.completion", "Print a completion script for your shell."),
}
ALIASES = {"gen": "generate"}

# Words people try that mean something else here.
_INSTEAD = {
    "download": "this version cannot fetch models: save a .pth file, then rwkv chat -m FILE",
    "run": "to talk with a model: rwkv chat",
    "ask": 'to ask one question: rwkv generate --chat "your question"',
    "list": "to list models: rwkv models",
}

_EPILOG = (
    'Try: rwkv generate "Once upon a time" · cat notes.txt | rwkv generate "Summarize" · rwkv chat'
)

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
        command: click.Command = getattr(import_module(COMMANDS[name][0]), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a line, or suggest one."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            close = difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1)
            guess = f"did you mean {close[0]}?" if close else "rwkv --help lists the commands"
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
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        no_args_is_help=True,
    )
    return click.version_option(__version__, "-V", "--version", message="rwkv %(version)s")(group)


def run(arguments: Sequence[str]) -> int:
    """Run a command line: the exit code. Everything a user can cause is one sentence on stderr."""
    _on_signals()
    try:
        program().main(list(arguments), prog_name="rwkv", standalone_mode=False)
    except RwkvError as error:
        return fail(error.message, error.hint, error.exit_code, arguments)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        note(error.format_message())
        return UsageError.exit_code
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        hint = f"{where.command_path} --help" if where else None
        return fail(error.format_message().rstrip("."), hint, UsageError.exit_code, arguments)
    except (KeyboardInterrupt, click.Abort):
        return SIGINT_STATUS
    except Terminated:
        return SIGTERM_STATUS
    except BrokenPipeError:
        silence_stdout()
        return SIGPIPE_STATUS
    except MemoryError:
        return fail("there is not enough memory", None, 8, arguments)
    except Exception as error:
        what = f"this is a bug in rwkv: {type(error).__name__}: {error}"
        return fail(what, "run it again with --debug and report what it prints", 1, arguments)
    return 0


def fail(message: str, hint: str | None, code: int, arguments: Sequence[str]) -> int:
    """Show an error; with --debug its traceback as well."""
    if "--debug" in arguments and sys.exc_info()[0] is not None:
        note(safe_lines(traceback.format_exc()))
    note(f"rwkv: {safe(message)}")
    if hint:
        note(f"  {safe(hint)}")
    return code


def safe_lines(text: str) -> str:
    """Make several lines safe to show."""
    return "\n".join(safe(line) for line in text.splitlines())


def _on_signals() -> None:
    """Make a request to end unwind the program, so that what exists is kept."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, end)


def leave(code: int) -> int:
    """End quickly: everything that matters is written, and tearing down torch takes time."""
    sys.stderr.flush()
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            silence_stdout()
    os._exit(code)
