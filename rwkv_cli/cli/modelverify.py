"""Checking models: their structure, and their bytes where it is known what those must be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from rwkv_cli.cli.modelfacts import Known, find_model, known_models
from rwkv_cli.errors import RefusedError
from rwkv_cli.files import reason
from rwkv_cli.hub import sidecar
from rwkv_cli.render.progress import Progress
from rwkv_cli.render.streams import STDOUT, is_terminal, stdout_sink, terminal_width
from rwkv_cli.render.tables import hanging

_BLOCK = 1 << 22  # bytes
_SOUND = re.compile(r"[\w.-]+/[\w.-]+:[\w./+-]+", re.ASCII)  # what a shell takes as it is


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
    expected = _expected(model.path)
    if not expected:
        count = len(model.file.checkpoint.tensors)
        told = f"{count} tensors are in their places; no checksum is known"
        note = sidecar.path_of(model.path)
        if note.is_file() and sidecar.read(model.path) is None:
            told += f", for {note.name} makes no sense"
        return Finding(True, told)
    progress = Progress(f"verifying {model.name}", "bytes", model.size, enabled=not quiet)
    done, found = 0, None
    try:
        for one in expected:
            found = _compared(one, progress, done)
            if not found.sound:
                return found
            done += one.path.stat().st_size
    except OSError as error:
        return Finding(False, reason(error))
    finally:
        progress.finish()
    assert found is not None
    if len(expected) > 1:
        return Finding(True, f"the sha256 of all {len(expected)} files are those of {found.told}")
    return Finding(True, f"its sha256 is that of {expected[0].whose}", found.sha256)


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a file must be.

    Attributes:
        path: The file.
        sha256: In hex.
        size: Bytes; None where nobody says.
        whose: Who says so.
    """

    path: Path
    sha256: str
    size: int | None
    whose: str


def _expected(path: Path) -> list[_Expected]:
    """Tell what the files of a model must be; nothing where that is not known."""
    from rwkv_cli.hub.catalogue import find

    told = sidecar.read(path)
    if told is not None and told.files:
        return [
            _Expected(path / name, row["sha256"].lower(), row.get("size"), "the download")
            for name, row in told.files.items()
            if isinstance(row, dict) and isinstance(row.get("sha256"), str) and _is_inside(name)
        ]
    if told is not None and told.sha256:
        return [_Expected(path, told.sha256.lower(), told.size, "the download")]
    entry = find(path.name)
    return [_Expected(path, entry.sha256, None, "the catalogue")] if entry and entry.sha256 else []


def _is_inside(name: str) -> bool:
    """Tell whether a note means a file of the folder itself; it may come from anywhere, and lead
    anywhere.
    """
    return name not in ("", "..") and not any(char in name for char in "/\\\0")


def _compared(one: _Expected, progress: Progress, before: int) -> Finding:
    """Compare a file with what it must be.

    Args:
        one: The file.
        progress: Told how far it is.
        before: Bytes of other files that were read before.

    Raises:
        OSError: It cannot be read.
    """
    status = one.path.stat()
    if not S_ISREG(status.st_mode):
        return Finding(False, f"{one.path.name} is not a regular file")
    size = status.st_size
    if isinstance(one.size, int) and one.size != size:
        return Finding(False, f"{one.path.name} has {size:,} bytes, not {one.size:,}")
    found = _digest(one.path, lambda count: progress.update(before + count))
    if found == one.sha256:
        return Finding(True, one.whose, found)
    differs = f"{found[:12]}…, that of {one.whose} {one.sha256[:12]}…"
    return Finding(False, f"the sha256 of {one.path.name} is {differs}", found)


def _digest(path: Path, progress: Callable[[int], None]) -> str:
    """Compute the SHA-256 of a file."""
    digest, done = hashlib.sha256(), 0
    for block in _blocks(path):
        digest.update(block)
        done += len(block)
        progress(done)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]


def _again(model: Known) -> str:
    """Say how to get a sound copy."""
    if not model.name.isprintable():
        return "rwkv models --paths tells where its file lies"
    known = sidecar.read(model.path)
    source = f"{known.repo}:{known.file}" if known and known.repo and known.file else ""
    again = f", then rwkv download {source}" if _SOUND.fullmatch(source) else ""
    return f"rwkv models rm {model.name}{again}"
