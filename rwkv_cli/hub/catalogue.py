"""The published models that this program knows by a short name; data, without network or disk
beyond the package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rwkv_cli.hub.matching import plain

_FILE = Path(__file__).parents[1] / "data" / "catalogue.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One published model.

    Attributes:
        names: What it can be called; the first is the one that is shown.
        repo: OWNER/NAME on the hub.
        file: The file in the repository; empty where the repository as a whole is the model.
        size: Bytes, or None where nobody wrote them down.
        about: Bytes, roughly, where `size` is None.
        sha256: Of the file, in hex; None where it is not known.
        licence: SPDX name; None where the repository does not state it.
        family: The chat format, as `text/templates` names it.
        version: Of the architecture: 4, 5, 6 or 7.
        parameters: "1.5b".
        date: Day of the release, ISO; None for conversions of older files.
        format: pth, gguf or hf.
    """

    names: tuple[str, ...]
    repo: str
    file: str
    size: int | None
    about: int | None
    sha256: str | None
    licence: str | None
    family: str
    version: int
    parameters: str
    date: str | None
    format: str

    @property
    def name(self) -> str:
        """The name that is shown."""
        return self.names[0]

    @property
    def bytes(self) -> int:
        """The size, exact or rough."""
        return self.size or self.about or 0

    @property
    def tokenizer(self) -> str:
        """The tokenizer that the model was trained with: "world" or "20b"."""
        return "20b" if self.family in ("pile", "raven") else "world"

    @property
    def newest(self) -> bool:
        """Whether this is the release to take of its size: it has the size as a name."""
        return self.parameters in self.names


@dataclass(frozen=True, slots=True)
class Companion:
    """A tokenizer's file, which no package brings.

    Attributes:
        repo: OWNER/NAME on the hub.
        file: The file in the repository.
        name: What it must be called beside the model.
    """

    repo: str
    file: str
    name: str


def entries() -> tuple[Entry, ...]:
    """List all models, the newest family first."""
    return _read()[0]


def companion(tokenizer: str) -> Companion | None:
    """Give the file that a tokenizer needs; None for one that comes with this program."""
    return _read()[1].get(tokenizer)


def find(name: str) -> Entry | None:
    """Find a model by one of its names, or by the name of its file; None when there is none."""
    return _by_name().get(_key(name))


def _key(name: str) -> str:
    return plain(name.strip().removesuffix(".pth").removesuffix(".gguf"))


@cache
def _by_name() -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries():
        for name in (*entry.names, entry.file.rpartition("/")[2]):
            if name:
                found.setdefault(_key(name), entry)
    return found


@cache
def _read() -> tuple[tuple[Entry, ...], dict[str, Companion]]:
    data: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    missing = dict.fromkeys(("size", "about", "sha256", "licence", "date"))
    models = tuple(
        Entry(**{**missing, **row, "names": tuple(row["names"])}) for row in data["models"]
    )
    return models, {name: Companion(**row) for name, row in data["tokenizers"].items()}
