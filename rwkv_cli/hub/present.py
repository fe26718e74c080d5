"""What is here already: in the models folder, or in the cache of the hub's own tools."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO

from rwkv_cli.errors import StorageError, UsageError
from rwkv_cli.files import reason
from rwkv_cli.hub import hfcache, sidecar
from rwkv_cli.hub.choice import Model
from rwkv_cli.hub.hashing import Hasher, Promise
from rwkv_cli.hub.listing import Listing, Remote
from rwkv_cli.hub.sidecar import Sidecar
from rwkv_cli.hub.wanted import Wanted, safe_name
from rwkv_cli.hub.watching import Watch


def in_folder(folder: Path, wanted: Wanted) -> Path | None:
    """Find what was asked for in the models folder without asking the network; None when only the
    network can tell.
    """
    entry = wanted.entry
    if entry is None:
        return None
    place = folder / safe_name(entry.file or entry.repo)
    note = sidecar.read(place)
    if not place.exists():
        return None
    if note is not None:
        same = note.sha256 == entry.sha256 if entry.sha256 else note.repo == entry.repo
        return place if same and _is_as_noted(place, note) else None
    fits = entry.size is not None and place.is_file() and place.stat().st_size == entry.size
    return place if fits else None


def remembered(folder: Path, wanted: Wanted) -> Path | None:
    """Find what was downloaded from the same place before, whatever its version."""
    with contextlib.suppress(OSError):
        for note in sorted(folder.glob("*.json")):
            place = note.with_suffix("")
            found = sidecar.read(place) if place.exists() else None
            if found is None:
                continue
            if wanted.url and found.url == wanted.url:
                return place
            if wanted.repo and found.repo == wanted.repo and wanted.file in (found.file or "", ""):
                return place
    return None


def is_same(place: Path, model: Model, listing: Listing | None, watch: Watch) -> bool:
    """Tell whether what has a model's name is that model; a file of ours is believed, another one
    is compared.
    """
    if not place.exists():
        return False
    note = sidecar.read(place)
    if model.folder:
        return note is not None and listing is not None and note.revision == listing.commit
    file = model.files[0]
    if note is not None and _is_as_noted(place, note):
        if file.sha256:
            return note.sha256 == file.sha256
        return note.size == file.size
    promise = Promise(file.sha256, file.blob)
    return place.is_file() and place.stat().st_size == file.size and is_kept(promise, place, watch)


def _is_as_noted(place: Path, note: Sidecar) -> bool:
    """Tell whether a file still has the size that it had when its note was written."""
    return place.is_dir() or note.size in (None, place.stat().st_size)


def is_kept(promise: Promise, path: Path, watch: Watch) -> bool:
    """Tell whether a file is what was promised, by reading all of it.

    Raises:
        StorageError: It cannot be read.
    """
    return not promise.known or promise.kept_by(digests(path, watch))


def digests(path: Path, watch: Watch) -> Promise:
    """Give the digests of a file, by reading all of it.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            watch.begin(path.name, size, size)
            hasher = Hasher(lambda at, amount: _at(file, at, amount), size)
            try:
                return hasher.finish(size, lambda done: watch.checking(done, size))
            finally:
                hasher.stop()
                watch.end()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason(error)}") from error


def _at(file: BinaryIO, at: int, amount: int) -> bytes:
    file.seek(at)
    return file.read(amount)


def from_cache(
    cache: Path, listing: Listing, model: Model, place: Path, watch: Watch
) -> Path | None:
    """Use a model of the hub's own tools where it lies.

    Returns:
        A link to it under its name; the model itself, where links cannot be made; None when it is
        not there, or damaged.

    Raises:
        StorageError: It cannot be read.
    """
    found = hfcache.held(cache, listing.repo, listing.commit, model)
    if found is None:
        return None
    for file in model.files:
        path = found / file.path.rpartition("/")[2] if model.folder else found
        if not is_kept(Promise(file.sha256, file.blob), path, watch):
            watch.say(f"{path} in the cache of huggingface_hub is damaged: downloading instead")
            return None
    try:
        if place.is_symlink():
            place.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(found)
    except OSError:
        watch.say(f"{place.name} is used where it lies, and has no name here: give its path")
        return found
    return place


def cached_listing(cache: Path, wanted: Wanted) -> Listing | None:
    """Say what the cache of the hub's tools holds of a repository, as if the hub had been asked."""
    commit = hfcache.known_commit(cache, wanted.repo, wanted.revision) or wanted.revision
    files = hfcache.files_at(cache, wanted.repo, commit) if commit else {}
    if not files:
        return None
    rows = tuple(Remote(path, size) for path, size in files.items())
    return Listing(wanted.repo, commit, rows, None)


def require_free(place: Path, *, force: bool) -> None:
    """Make sure that nobody's file is replaced unasked.

    Raises:
        UsageError: There is another file of that name.
    """
    if place.is_symlink() and not place.exists():
        place.unlink()  # what it led to was deleted from a cache
    if not force and place.exists():
        raise UsageError(
            f"{place} is there already, and is not this version of it",
            hint="--force puts the new one in its place, -o FOLDER puts it elsewhere",
        )
