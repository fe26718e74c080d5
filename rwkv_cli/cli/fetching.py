"""What `rwkv download` and the commands that miss a model share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rwkv_cli.errors import UsageError
from rwkv_cli.places import (
    hub_cache_folder,
    hub_endpoint,
    hub_token,
    models_folder,
    offline_by,
)
from rwkv_cli.render.downloading import DownloadView
from rwkv_cli.render.modeltable import can_ask, lines, pick
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.sizes import amount

if TYPE_CHECKING:
    from rwkv_cli.hub.choice import Model
    from rwkv_cli.hub.fetch import Fetcher
    from rwkv_cli.hub.names import NotInstalledError

LEGEND = "arrows move, enter downloads, q leaves"
KEPT = "stopped; what has come is kept: the same command goes on from there"


def open_fetcher(
    view: DownloadView,
    *,
    folder: Path | None = None,
    endpoint: str | None = None,
    offline: bool = False,
    force: bool = False,
    connections: int = 4,
    give_up: float = 600,
) -> Fetcher:
    """Get ready to download, as the environment says.

    Raises:
        UsageError: The address of the hub is none.
    """
    from rwkv_cli.hub.fetch import Fetcher
    from rwkv_cli.hub.onefile import Manner
    from rwkv_cli.hub.web import Web

    hub = (endpoint or hub_endpoint()).rstrip("/")
    if urlsplit(hub).scheme not in ("http", "https") or not urlsplit(hub).hostname:
        raise UsageError(
            f"the hub's address {hub!r} is no URL", hint="as in HF_ENDPOINT=https://hf-mirror.com"
        )
    barred = offline or offline_by() is not None
    return Fetcher(
        folder=folder or models_folder(),
        endpoint=hub,
        cache=hub_cache_folder(),
        web=None if barred else Web(hub_token(), connections),
        watch=view,
        ask=choose_file if can_ask() else None,
        force=force,
        manner=Manner(connections, give_up),
    )


def choose_file(repo: str, models: Sequence[Model]) -> Model:
    """Let a person choose among the files of a repository.

    Raises:
        UsageError: They chose none.
    """
    rows = [(model.label, amount(model.size)) for model in models]
    labels = [model.label for model in models]
    found = pick(lambda width: lines(rows, width), labels, f"{repo} has several models", LEGEND)
    if found is None:
        raise UsageError("nothing was chosen", hint=f"rwkv download {repo}:FILE")
    return next(model for model in models if model.label == found)


def downloaded(missing: NotInstalledError, *, quiet: bool) -> Path:
    """Give a published model that is not found by its name: the one in the models folder, or, when
    the person at the terminal agrees, a new one.

    Args:
        missing: Which, and what is to be said when it may not be downloaded.
        quiet: Whether to show no progress.

    Raises:
        NotInstalledError: It may not.
    """
    from rwkv_cli.hub.present import in_folder
    from rwkv_cli.hub.wanted import parse

    entry = missing.entry
    wanted = parse(entry.name)
    found = in_folder(models_folder(), wanted)
    if found is not None:
        return found
    size = amount(entry.bytes) if entry.bytes else "size unknown"
    if offline_by() or not can_ask() or not _agreed(f"Download {entry.name} ({size})"):
        raise missing
    view = DownloadView(quiet=quiet)
    try:
        return open_fetcher(view).fetch(wanted)
    except KeyboardInterrupt:
        view.end()
        note(KEPT)
        raise


def _agreed(what: str) -> bool:
    note(f"{safe(what)} from {urlsplit(hub_endpoint()).netloc}? [Y/n]")
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")
