"""`rwkv chat`: talk with a model; every turn is kept as it ends."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.conversing import Opening, model_of, open_library
from rwkv_cli.cli.loading import Loading, choose_model
from rwkv_cli.cli.options import NUMBER, Command, common_options, model_options, sampling_options
from rwkv_cli.cli.prompt import Prompt, gather
from rwkv_cli.cli.repl import Repl
from rwkv_cli.cli.settings import Settings, collect
from rwkv_cli.engine.modelfile import DEMO, open_model
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.render.streams import STDIN, is_terminal, stdout_sink
from rwkv_cli.store.chatlog import ChatLog
from rwkv_cli.store.library import Library


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[MESSAGE]...")
@click.option("-c", "--continue", "last", is_flag=True, help="Go on with the last conversation.")
@click.option("-r", "--resume", metavar="ID|NAME", help="Go on with this one, or one with WORDS.")
@click.option("--fork", metavar="ID[@TURN]", help="Go on in a copy of one, from a turn of it.")
@click.option("-n", "--name", metavar="NAME", help="What the conversation is called.")
@click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="Read a file first.")
@click.option("-s", "--system", metavar="TEXT", help="System text.")
@click.option("--state", metavar="NAME|FILE", help="Begin from a saved state.")
@click.option("--think", metavar="MODE", help="Off, fast, short, on or long, if the model can.")
@click.option("--prefill", metavar="TEXT", help="What the first answer begins with.")
@click.option(
    "-N", "--max-tokens", type=NUMBER, metavar="N", help="Longest answer, in tokens (4096)."
)
@click.option("-i", "--interactive", is_flag=True, help="After piped text, go on at the keyboard.")
@click.option("--rebuild", is_flag=True, help="Read a conversation again with another model.")
@click.option("--no-cache", is_flag=True, help="Keep and use no states of prompts.")
@click.option("--no-save", is_flag=True, help="Leave nothing on the disk.")
@sampling_options
@model_options
@common_options
def chat(**flags: Any) -> None:
    """Talk with a model; every turn is kept as it ends, and can be returned to.

    A message on the command line is sent first; one piped into stdin is answered, and that is
    all, unless -i goes on at the keyboard. In the chat, /help lists the commands, Ctrl-C stops an
    answer and keeps what there is of it, Ctrl-D leaves.

    \b
    rwkv chat
    rwkv chat -c
    rwkv chat -m model.pth -s "You are a patient teacher." "What is a monad?"
    cat report.txt | rwkv chat -i
    """
    settings = collect(flags)
    resuming = [flag for flag in ("last", "resume", "fork") if flags[flag]]
    _check(flags, resuming)
    stdout_sink()  # a closed stdout is found before anything is read or loaded
    piped = not is_terminal(STDIN)
    first, documents = _first(flags, piped=piped)
    library = open_library(settings, untouched=flags["no_save"])
    log = _log(library, flags)
    path = _model_path(settings, log, flags)
    if piped and flags["interactive"]:
        documents = replace(documents, source=_take_keyboard())
    model = Loading(path, settings)  # while the first message is being typed
    open_model(path).checkpoint.close()  # reports a file that is no model before a prompt appears
    opening = Opening(settings, flags, library, log, model)
    repl = Repl(opening, flags, interactive=not piped or flags["interactive"])
    try:
        repl.run(first, documents)
    finally:
        opening.cache.close()


def _check(flags: dict[str, Any], resuming: list[str]) -> None:
    """Refuse flags that contradict each other.

    Raises:
        UsageError: Some do.
    """
    if len(resuming) > 1:
        raise UsageError("only one of --continue, --resume and --fork can be meant")
    if resuming and flags["system"] is not None:
        raise UsageError("-s begins a conversation; leave it out when one goes on")
    if resuming and flags["state"]:
        raise UsageError("--state begins a conversation; leave it out when one goes on")
    if flags["rebuild"] and not resuming:
        raise UsageError(
            "--rebuild takes a conversation", hint="name it: rwkv chat -r ID --rebuild"
        )


def _first(flags: dict[str, Any], *, piped: bool) -> tuple[str, Prompt]:
    """Give the first message, and what is to be read before it.

    Raises:
        UsageError: Nothing was piped.
    """
    words = " ".join(flags["words"])
    documents = gather((), flags["files"])
    if not piped or "-" in flags["files"]:
        return words, Prompt(files=documents.files)
    if words or flags["interactive"] or flags["files"]:
        if not words and not flags["interactive"]:
            return _text_of(documents), Prompt(files=documents.files)
        return words, documents
    text = _text_of(documents)
    if not text.strip():
        raise UsageError("there is no message", hint="type one: rwkv chat, in a terminal")
    return text, Prompt()


def _text_of(documents: Prompt) -> str:
    """Read what was piped as a message."""
    piped = b"".join(Prompt(piped=documents.piped).document())
    return piped.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _log(library: Library, flags: dict[str, Any]) -> ChatLog:
    """Choose the conversation.

    Raises:
        NotFoundError: There is none of that name.
    """
    if flags["last"]:
        return library.latest()
    if flags["resume"]:
        return library.find(flags["resume"])
    if not flags["fork"]:
        return library.new()
    name, _, turn = flags["fork"].partition("@")
    source = library.find(name)
    head = source.tree.find(turn) if turn else source.tree.head
    assert source.begin is not None
    source.tree.head = head
    copy = library.new()
    turns = tuple(source.tree.path())
    begin = replace(source.begin, id=copy.id, forked=f"{source.id}@{head}", turns=turns)
    copy.plan(begin, source=source)
    return copy


def _take_keyboard() -> int:
    """Put the terminal in place of stdin; give another descriptor of what was piped.

    Raises:
        UsageError: There is no terminal.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError as error:
        raise UsageError("-i needs a terminal to go on at") from error
    piped = os.dup(STDIN)
    os.dup2(terminal, STDIN)
    os.close(terminal)
    sys.stdin = open(STDIN, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    return piped


def _model_path(settings: Settings, log: ChatLog, flags: dict[str, Any]) -> Path:
    """Choose the model: the one that is named, else the one a continued conversation was held
    with.

    Raises:
        NotFoundError: It is not there any more.
    """
    path = None if settings.model else model_of(log)
    if path is None:
        return choose_model(settings, quiet=flags["quiet"])
    if path.exists():
        return path
    if path.name == DEMO.name:  # of another installation
        return DEMO
    raise NotFoundError(
        f"the model of this conversation is gone: {path}", hint="say where it is with -m FILE"
    )
