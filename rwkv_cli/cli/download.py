"""`rwkv download`: fetches a published model, by name or from anywhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rwkv_cli.cli.fetching import KEPT, LEGEND, open_fetcher
from rwkv_cli.cli.options import Command, common_options
from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.hub import catalogue
from rwkv_cli.hub.catalogue import Entry
from rwkv_cli.hub.fit import Fit, fitted, room_here
from rwkv_cli.hub.matching import plain
from rwkv_cli.hub.wanted import Wanted, parse
from rwkv_cli.places import expanded, models_folder
from rwkv_cli.render.downloading import DownloadView
from rwkv_cli.render.modeltable import can_ask, cells, free, heading, lines, pick
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDOUT, Sink, is_terminal, note, stdout_sink, terminal_width
from rwkv_cli.sizes import amount

_LIST = "rwkv download --list shows what there is; docs/models.md helps to choose"


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME|OWNER/REPO[:FILE][@REV]|URL]...")
@click.option("--list", "as_list", is_flag=True, help="Show what can be downloaded.")
@click.option("--json", "as_json", is_flag=True, help="The list, or events, as JSON on stdout.")
@click.option("-o", "--output", metavar="FOLDER", help="Where to; else the models folder.")
@click.option("--revision", metavar="REV", default="", help="Branch, tag or commit.")
@click.option("--force", is_flag=True, help="Replace another file of the same name.")
@click.option("--offline", is_flag=True, help="Use what is here; never ask the network.")
@click.option("--endpoint", metavar="URL", help="A mirror of the hub, as HF_ENDPOINT names one.")
@click.option(
    "--connections", type=click.IntRange(1, 16), default=4, metavar="N", help="Ranges at a time; 4."
)
@click.option(
    "--give-up",
    type=click.FloatRange(0),
    default=10,
    metavar="MINUTES",
    help="Stop when no byte came for so long; 10. 0: never.",
)
@common_options
def download(names: tuple[str, ...], quiet: bool, **flags: Any) -> None:
    """Fetch models, each into the models folder, and print their paths.

    \b
    rwkv download                      choose from a list
    rwkv download 1.5b                 the newest model of that size
    rwkv download BlinkDL/rwkv7-g1     choose among the files of a repository
    rwkv download --list raven         what is called so

    An interrupted download goes on where it was, with the same command. A file gets its name
    when all of it is there and its checksum is right.
    """
    folder = expanded(flags["output"]).absolute() if flags["output"] else models_folder()
    if flags["as_list"]:
        _show_list(names, folder, as_json=flags["as_json"], quiet=quiet, flags=flags)
        return
    sink = stdout_sink()
    chosen = names or (_picked(folder, as_json=flags["as_json"]),)
    wanted = [parse(name, flags["revision"]) for name in chosen if name]
    view = DownloadView(quiet=quiet, events=sink if flags["as_json"] else None)
    fetcher = open_fetcher(
        view,
        folder=folder,
        endpoint=flags["endpoint"],
        offline=flags["offline"],
        force=flags["force"],
        connections=flags["connections"],
        give_up=60 * flags["give_up"],
    )
    try:
        for each in wanted:
            _tell(fetcher.fetch(each), view, sink, as_json=flags["as_json"])
    except KeyboardInterrupt:
        view.end()
        note(KEPT)
        raise


def _tell(path: Path, view: DownloadView, sink: Sink, *, as_json: bool) -> None:
    """Print where a model is."""
    view.end()
    view.done(str(path))
    if not as_json:
        sink.write(f"{path}\n".encode("utf-8", "surrogateescape"))


def _picked(folder: Path, *, as_json: bool) -> str:
    """Let the user choose a model; empty when they chose none.

    Raises:
        UsageError: Nobody can choose.
    """
    if not can_ask() or as_json:
        raise UsageError("say which model to download", hint=_LIST)
    room = room_here(folder)
    rows = fitted(catalogue.entries(), room)
    table = [cells(entry, how, installed=_is_here(folder, entry)) for entry, how in rows]
    names = [entry.name for entry, _ in rows]
    title = "Which model? * is the one to take here"
    found = pick(lambda width: lines(table, width), names, title, f"{LEGEND}; {free(room)}")
    if found is None:
        note("Nothing was downloaded.")
    return found or ""


def _is_here(folder: Path, entry: Entry) -> bool:
    from rwkv_cli.hub.present import in_folder

    return in_folder(folder, Wanted(entry.name, entry.repo, entry.file, entry=entry)) is not None


def _show_list(
    words: tuple[str, ...], folder: Path, *, as_json: bool, quiet: bool, flags: dict[str, Any]
) -> None:
    """Print the catalogue, or those of it that have all words in their names, or a repository."""
    if len(words) == 1 and "/" in words[0]:
        _show_repository(words[0], as_json=as_json, quiet=quiet, flags=flags)
        return
    room = room_here(folder)
    fits = dict(fitted(catalogue.entries(), room))
    rows = [
        (entry, fits[entry])
        for entry in catalogue.entries()
        if all(plain(word) in _described(entry) for word in words)
    ]
    if not rows:
        raise NotFoundError(f"no published model is called {' '.join(words)!r}", hint=_LIST)
    if as_json:
        _print_json(rows, folder)
        return
    _print_table(rows, folder)
    if not quiet:
        star = "* is the one to take here; " if any(fit.recommended for _, fit in rows) else ""
        note(f"{star}{safe(free(room))}")
        note("rwkv download NAME fetches one; docs/models.md helps to choose")


def _described(entry: Entry) -> str:
    return plain(f"{' '.join(entry.names)} {entry.repo} {entry.file}")


def _print_table(rows: list[tuple[Entry, Fit]], folder: Path) -> None:
    table = [cells(entry, how, installed=_is_here(folder, entry)) for entry, how in rows]
    width = terminal_width() if is_terminal(STDOUT) else 1 << 10
    text = "\n".join(lines([("  " + heading()[0], *heading()[1:]), *table], width))
    stdout_sink().write(f"{text}\n".encode())


def _print_json(rows: list[tuple[Entry, Fit]], folder: Path) -> None:
    listed = [
        {
            "name": entry.name,
            **asdict(entry),
            "here": how.how,
            "recommended": how.recommended,
            "installed": _is_here(folder, entry),
        }
        for entry, how in rows
    ]
    stdout_sink().write(json.dumps(listed, indent=1).encode() + b"\n")


def _show_repository(name: str, *, as_json: bool, quiet: bool, flags: dict[str, Any]) -> None:
    """Print what a repository has."""
    from rwkv_cli.hub.choice import models_of

    wanted = parse(name, flags["revision"])
    view = DownloadView(quiet=quiet)
    fetcher = open_fetcher(view, endpoint=flags["endpoint"], offline=flags["offline"])
    models = models_of(fetcher.listing(wanted))
    if as_json:
        rows = [{"file": model.label, "size": model.size or None} for model in models]
        stdout_sink().write(json.dumps(rows, indent=1).encode() + b"\n")
        return
    table = [("file", "size"), *((model.label, amount(model.size)) for model in models)]
    width = terminal_width() if is_terminal(STDOUT) else 1 << 10
    stdout_sink().write(("\n".join(lines(table, width)) + "\n").encode())
