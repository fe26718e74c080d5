"""What is remembered of a downloaded model: a small file beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rwkv_cli.checkpoints.bounded_json import parse
from rwkv_cli.errors import RwkvError
from rwkv_cli.files import read_regular, write_atomic

_LARGEST = 4 << 20  # bytes
_TYPES: dict[str, type] = {"size": int, "verified": bool, "files": dict}  # all others are texts


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Where a model came from.

    Attributes:
        url: What was asked.
        repo: OWNER/NAME; None for a file from elsewhere.
        file: In the repository; of a folder, its path there.
        revision: The commit.
        size: Bytes; of a folder, of all its files.
        sha256: Of the file, as it was found to be.
        etag: The server's mark of it.
        license: As the repository states it.
        downloaded: When, in UTC.
        verified: Whether the digest was promised by somebody, and found.
        files: Of a folder: for each file its size and digest.
    """

    url: str
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    size: int | None = None
    sha256: str | None = None
    etag: str | None = None
    license: str | None = None
    downloaded: str | None = None
    verified: bool = False
    files: dict[str, Any] | None = None


def path_of(model: Path) -> Path:
    """Give the path of the file beside a model: for `foo.pth` it is `foo.pth.json`."""
    return model.with_name(f"{model.name}.json")


def read(model: Path) -> Sidecar | None:
    """Read what is remembered of a model; None when nothing is, or it makes no sense: what it says
    is never needed to use the model.
    """
    try:
        record = parse(read_regular(path_of(model), _LARGEST))
    except (RwkvError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("url"), str):
        return None
    known = {field.name: record.get(field.name) for field in fields(Sidecar)}
    told = {key: value for key, value in known.items() if value is not None}
    if not all(isinstance(value, _TYPES.get(key, str)) for key, value in told.items()):
        return None
    return Sidecar(**told)


def write(model: Path, sidecar: Sidecar) -> None:
    """Remember where a model came from.

    Raises:
        StorageError: The disk refused.
    """
    record = {key: value for key, value in asdict(sidecar).items() if key != "files" or value}
    record["downloaded"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_atomic(path_of(model), [json.dumps(record, indent=1).encode(), b"\n"])
