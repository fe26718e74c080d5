"""Which files of a repository are the model that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.hub.listing import Listing, Remote
from rwkv_cli.hub.wanted import WEIGHTS, safe_name

_SHOWN = 20
_CONFIG = "config.json"

# What a Hugging Face folder holds beside its weights that somebody may want.
_BESIDE = (".json", ".txt", ".jinja", ".model")


@dataclass(frozen=True, slots=True)
class Model:
    """What can be taken from a repository: a file, or a folder.

    Attributes:
        path: In the repository; a folder's, or empty for the repository as a whole.
        name: What it is kept as.
        files: Its files.
        folder: Whether it is a folder.
    """

    path: str
    name: str
    files: tuple[Remote, ...]
    folder: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size or 0 for file in self.files)

    @property
    def label(self) -> str:
        """How it is asked for."""
        return self.path or "."


Ask = Callable[[str, Sequence[Model]], Model]


def models_of(listing: Listing) -> list[Model]:
    """List what can be taken from a repository: folders with a config.json, and single files."""
    folders = _folders(listing)
    inside = {file.path for folder in folders for file in folder.files}
    single = [
        Model(file.path, safe_name(file.path), (file,))
        for file in listing.files
        if file.path.endswith(WEIGHTS) and file.path not in inside
    ]
    return [*folders, *sorted(single, key=lambda model: model.path)]


def _folders(listing: Listing) -> list[Model]:
    found = []
    for config in listing.files:
        place, _, name = config.path.rpartition("/")
        if name != _CONFIG:
            continue
        here = [file for file in listing.files if file.path.rpartition("/")[0] == place]
        weights = [f for f in here if f.path.endswith(".safetensors")]
        weights = weights or [f for f in here if f.path.endswith(".bin")]
        if weights:
            small = [f for f in here if f.path.endswith(_BESIDE)]
            kept = tuple(sorted((*weights, *small), key=lambda file: file.path))
            for file in kept:
                safe_name(file.path)
            called = safe_name(place or listing.repo)
            found.append(Model(place, called, kept, folder=True))
    return found


def choose(listing: Listing, wanted: str, ask: Ask | None) -> Model:
    """Find the model in a repository.

    Args:
        listing: What it holds.
        wanted: The file or folder, or a part of its path that only one has; empty to choose.
        ask: Lets a person choose; None where nobody can be asked.

    Raises:
        NotFoundError: Nothing fits.
        UsageError: Several do, and nobody can be asked.
    """
    models = models_of(listing)
    if wanted:
        exact = [m for m in models if m.label == wanted.strip("/")]
        part = [m for m in models if wanted.lower() in m.path.lower()]
        plain = [f for f in listing.files if f.path == wanted]
        if not exact and plain:
            exact = [Model(wanted, safe_name(wanted), (plain[0],))]
        models = exact or part
    if not models:
        what = f"no file {wanted!r}" if wanted else "no weights (.pth, .safetensors, .gguf)"
        raise NotFoundError(
            f"{listing.repo} has {what}", hint=f"rwkv download {listing.repo} lists what it has"
        )
    if len(models) == 1:
        return models[0]
    if ask is not None:
        return ask(listing.repo, models)
    names = ", ".join(model.label for model in models[:_SHOWN])
    more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
    raise UsageError(
        f"{listing.repo} has {len(models)} models; say which",
        hint=f"rwkv download {listing.repo}:FILE, with one of: {names}{more}",
    )
