"""`rwkv chat`: talk with a model; every turn is kept as it ends."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.loading import choose_model, load
from rwkv_cli.cli.options import NUMBER, common_options, model_options, sampling_options
from rwkv_cli.cli.repl import Repl
from rwkv_cli.cli.settings import Settings, collect
from rwkv_cli.engine.load import open_model
from rwkv_cli.engine.model import Model
from rwkv_cli.errors import UsageError
from rwkv_cli.places import chats_folder
from rwkv_cli.render.streams import STDIN, is_terminal, read_stdin
from rwkv_cli.store import Chat, latest_chat, model_of, new_chat


@click.command()
@click.argument("words", nargs=-1, metavar="[MESSAGE]...")
@click.option("-c", "--continue", "resume", is_flag=True, help="Go on with the last conversation.")
@click.option("-s", "--system", metavar="TEXT", help="System text.")
@click.option("--think", metavar="MODE", help="off, fast, short, on or long, if the model can.")
@click.option("-N", "--max-tokens", type=NUMBER, metavar="N", help="Longest answer (4096).")
@click.option("--no-save", is_flag=True, help="Leave nothing on the disk.")
@sampling_options
@model_options
@common_options
def chat(**flags: Any) -> None:
    """Talk with a model; every turn is kept as it ends.

    A message on the command line, or piped into stdin, is sent first. In the chat, /help lists the
    commands, Ctrl-C stops an answer and keeps what there is of it, Ctrl-D leaves.

    \b
    rwkv chat
    rwkv chat --continue
    rwkv chat -m model.pth -s "You are a patient teacher." "What is a monad?"
    """
    settings = collect(flags)
    place = _place(flags)
    path = _model_path(settings, place, flags)
    piped = not is_terminal(STDIN)
    first = " ".join(flags["words"])
    if piped:
        first = _joined(first)
        if not first.strip():
            raise UsageError("there is no message", hint="type one: rwkv chat, in a terminal")
    with ThreadPoolExecutor(1) as pool:
        # The weights load while the first message is being typed.
        model = pool.submit(load, path, settings, quiet=piped or flags["quiet"])
        _check_header(path, settings, model)
        repl = Repl(settings, flags, place, model.result)
        repl.run(first, interactive=not piped)


def _place(flags: dict[str, Any]) -> Chat | None:
    """Find where the conversation is kept; None when it is not to be kept."""
    if flags["resume"]:
        return latest_chat(chats_folder())
    return None if flags["no_save"] else new_chat(chats_folder())


def _model_path(settings: Settings, place: Chat | None, flags: dict[str, Any]) -> Path:
    """Choose the model: the one that is named, else the one a continued conversation was held
    with.
    """
    if flags["resume"] and place and not settings.model:
        path = model_of(place)
        if path is not None and path.exists():
            return path
    return choose_model(settings, quiet=flags["quiet"])


def _check_header(path: Path, settings: Settings, model: Future[Model]) -> None:
    """Report a file that is no model before a prompt appears."""
    open_model(path).checkpoint.close()
    settings.placement()
    if model.done():
        model.result()


def _joined(words: str) -> str:
    """Put piped text before the words."""
    text = b"".join(read_stdin()).decode("utf-8", "surrogateescape")
    return f"{text}\n{words}" if words else text
