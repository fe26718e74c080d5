"""The cache of packed weights: what it holds, and under which names. Imports neither numpy nor the
library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.checkpoints.filenames import model_name
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.packed import LAYOUT
from rwkv_cli.errors import NotFoundError, StorageError
from rwkv_cli.files import reason
from rwkv_cli.places import cache_folder

SUFFIX = ".safetensors"

_KEY_DIGITS = 16
_STEM = 120  # characters of a model's name that its packed files bear


@dataclass(frozen=True, slots=True)
class Cached:
    """A file of the cache.

    Attributes:
        name: Of the model, the precision, and what its content comes to.
        path: Where it lies.
        nbytes: Its size.
    """

    name: str
    path: Path
    nbytes: int


def packed_folder() -> Path:
    """Give the folder of packed weights.

    Raises:
        StorageError: There is no home folder.
    """
    return cache_folder() / "packed"


def cached_path(file: ModelFile, dtype: str) -> Path:
    """Name the cached packing of a model. The content decides which it is; the model's name in
    front is for people.

    Raises:
        StorageError: There is no home folder.
    """
    identity = f"{file.fingerprint()};{dtype};{LAYOUT}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:_KEY_DIGITS]
    ending = f"-{dtype}-{key}{SUFFIX}"
    same = (p for p in _files(packed_folder()) if p.name.endswith(ending))
    stem = model_name(file.checkpoint.path)[:_STEM]
    return next(same, packed_folder() / f"{stem}{ending}")


def cached_files() -> list[Cached]:
    """List the packed weights in the cache, by name.

    Raises:
        StorageError: There is no home folder, or the folder cannot be read.
    """
    folder = packed_folder()
    try:
        return [Cached(p.stem, p, p.stat().st_size) for p in _files(folder)]
    except OSError as error:
        raise StorageError(f"cannot read {folder}: {reason(error)}") from error


def find_cached(name: str, files: Sequence[Cached]) -> Cached:
    """Find a file by its name, or by a part of it that only one has.

    Raises:
        NotFoundError: Nothing has that name, or several have.
    """
    found = [f for f in files if f.name == name] or [f for f in files if name in f.name]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f.name for f in found)
        raise NotFoundError(f"{name!r} could be any of {names}", hint="give more of the name")
    raise NotFoundError(f"the cache holds no {name!r}", hint="rwkv cache lists what it holds")


def remove_cached(file: Cached) -> None:
    """Delete a file; a process that has it open keeps it until it ends.

    Raises:
        StorageError: The system refused.
    """
    try:
        file.path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot delete {file.path}: {reason(error)}") from error


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix == SUFFIX and p.is_file())
