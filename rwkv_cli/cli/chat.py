"""`rwkv chat`: talk with a model; every turn is kept as it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.loading import Loading, choose_model
from rwkv_cli.cli.options import NUMBER, Command, common_options, model_options, sampling_options
from rwkv_cli.cli.repl import Repl
from rwkv_cli.cli.settings import Settings, collect
from rwkv_cli.engine.modelfile import DEMO, open_model
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.places import chats_folder
from rwkv_cli.render.streams import STDIN, is_terminal, read_stdin, stdout_sink
from rwkv_cli.store import Chat, latest_chat, model_of, new_chat


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[MESSAGE]...")
@click.option("-c", "--continue", "resume", is_flag=True, help="Go on with the last conversation.")
@click.option("-s", "--system", metavar="TEXT", help="System text.")
@click.option("--think", metavar="MODE", help="Off, fast, short, on or long, if the model can.")
@click.option(
    "-N", "--max-tokens", type=NUMBER, metavar="N", help="Longest answer, in tokens (4096)."
)
@click.option("--no-save", is_flag=True, help="Leave nothing on the disk.")
@sampling_options
@model_options
@common_options
def chat(**flags: Any) -> None:
    """Talk with a model; every turn is kept as it ends.

    A message on the command line is sent first; one piped into stdin is answered, and that is
    all. In the chat, /help lists the commands, Ctrl-C stops an answer and keeps what there is of
    it, Ctrl-D leaves.

    \b
    rwkv chat
    rwkv chat --continue
    rwkv chat -m model.pth -s "You are a patient teacher." "What is a monad?"
    """
    settings = collect(flags)
    if flags["resume"] and flags["system"] is not None:
        raise UsageError("-s begins a conversation; leave it out with --continue")
    stdout_sink()  # a closed stdout is found before anything is read or loaded
    piped = not is_terminal(STDIN)
    first = " ".join(flags["words"])
    if piped:
        first = _joined(first)
        if not first.strip():
            raise UsageError("there is no message", hint="type one: rwkv chat, in a terminal")
    place = latest_chat(chats_folder()) if flags["resume"] else new_chat(chats_folder())
    path = _model_path(settings, place, flags)
    model = Loading(path, settings)  # while the first message is being typed
    open_model(path).checkpoint.close()  # reports a file that is no model before a prompt appears
    Repl(settings, flags, place, model).run(first, interactive=not piped)


def _model_path(settings: Settings, place: Chat, flags: dict[str, Any]) -> Path:
    """Choose the model: the one that is named, else the one a continued conversation was held
    with.

    Raises:
        NotFoundError: It is not there any more.
    """
    path = model_of(place) if flags["resume"] and not settings.model else None
    if path is None:
        return choose_model(settings, quiet=flags["quiet"])
    if path.exists():
        return path
    if path.name == DEMO.name:  # of another installation
        return DEMO
    raise NotFoundError(
        f"the model of this conversation is gone: {path}", hint="say where it is with -m FILE"
    )


def _joined(words: str) -> str:
    """Put piped text before the words."""
    text = b"".join(read_stdin()).decode("utf-8", "surrogateescape")
    return f"{text}\n{words}" if words else text
