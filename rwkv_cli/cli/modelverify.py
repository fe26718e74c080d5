"""Checking models: their structure, and their bytes where it is known what those must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.cli.modelfacts import Known, find_model, known_models
from rwkv_cli.errors import RefusedError, StorageError
from rwkv_cli.files import reason
from rwkv_cli.hub.sidecar import read_sidecar
from rwkv_cli.render.progress import Progress
from rwkv_cli.render.streams import STDOUT, is_terminal, stdout_sink, terminal_width
from rwkv_cli.render.tables import hanging

_BLOCK = 1 << 22  # bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        sound: Whether all is well, as far as that can be known.
        told: What was found.
        sha256: Of the file, where it was computed.
    """

    sound: bool
    told: str
    sha256: str | None = None


def verify(names: Sequence[str], *, as_json: bool, quiet: bool) -> None:
    """Check models, all of them when none is named, and print what was found.

    Raises:
        NotFoundError: There is no model of a name.
        RefusedError: One of them is not what it must be.
    """
    models = [find_model(name) for name in names] or known_models()
    sink, broken = stdout_sink(wraps=False), []
    for model in models:
        finding = checked(model, quiet=quiet)
        if not finding.sound:
            broken.append(model)
        mark = "ok" if finding.sound else "BAD"
        width = terminal_width() if is_terminal(STDOUT) else None
        text = hanging([(mark, f"{model.name}: {finding.told}")], 5, width)
        if as_json:
            facts = {"name": model.name, "path": str(model.path), "sound": finding.sound}
            text = json.dumps({**facts, "told": finding.told, "sha256": finding.sha256}) + "\n"
        sink.write(text.encode("utf-8", "replace"))
    if broken:
        what = f"{len(broken)} of {len(models)} models" if len(models) > 1 else broken[0].name
        raise RefusedError(f"{what} cannot be trusted", hint=_again(broken[0]))


def checked(model: Known, *, quiet: bool) -> Finding:
    """Check a model: first its structure, then its bytes."""
    if model.file is None:
        return Finding(False, model.why or "unreadable")
    count = len(model.file.checkpoint.tensors)
    expected, whose = _expected(model.path)
    if expected is None:
        return Finding(True, f"{count} tensors are in their places; no checksum is known")
    size = read_sidecar(model.path).get("size")
    if isinstance(size, int) and size != model.size:
        return Finding(False, f"has {model.size:,} bytes, where {whose} has {size:,}")
    progress = Progress(f"verifying {model.name}", "bytes", model.size, enabled=not quiet)
    try:
        found = _digest(model.path, progress.update)
    except StorageError as error:
        return Finding(False, error.message)
    finally:
        progress.finish()
    if found != expected:
        return Finding(
            False, f"its sha256 is {found[:12]}…, that of {whose} {expected[:12]}…", found
        )
    return Finding(True, f"its sha256 is that of {whose}", found)


def _expected(path: Path) -> tuple[str | None, str]:
    """Give the checksum that a file must have, and who says so."""
    from rwkv_cli.hub.catalogue import find

    told = read_sidecar(path).get("sha256")
    if isinstance(told, str):
        return told.lower(), "the download"
    entry = find(path.name)
    return (entry.sha256 if entry else None), "the catalogue"


def _digest(path: Path, progress: Callable[[int], None]) -> str:
    """Compute the SHA-256 of a file.

    Raises:
        StorageError: It cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    try:
        for block in _blocks(path):
            digest.update(block)
            done += len(block)
            progress(done)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason(error)}") from error
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def _again(model: Known) -> str:
    """Say how to get a sound copy."""
    repo, file = (read_sidecar(model.path).get(key) for key in ("repo", "file"))
    if not model.name.isprintable():
        return "rwkv models --paths tells where its file lies"
    fetch = f", then rwkv download {repo}:{file}" if repo and file else ""
    return f"rwkv models rm {model.name}{fetch}"
