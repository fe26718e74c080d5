"""A lying hub, an environment that knows only it, and a fetcher that is in a hurry."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hub.liar import CERTIFICATE, Liar, serving

from rwkv_cli.hub import onefile, patience, transfer
from rwkv_cli.hub.fetch import Fetcher
from rwkv_cli.hub.wanted import parse
from rwkv_cli.hub.web import Web

REPO, FILE = "someone/rwkv", "rwkv7-test.pth"


def content(size: int, seed: int = 1) -> bytes:
    """Bytes that look like nothing."""
    return random.Random(seed).randbytes(size)


@dataclass
class Log:
    """Keeps what a download tells."""

    begun: list[tuple[str, int | None, int]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def begin(self, name: str, total: int | None, have: int) -> None:
        self.begun.append((name, total, have))

    def at(self, done: int, state: str = "") -> None:
        self.done.append(done)
        self.states.append(state)

    def checking(self, done: int, total: int | None) -> None:
        assert total is None or done <= total

    def say(self, text: str) -> None:
        self.said.append(text)

    def end(self) -> None:
        pass


@pytest.fixture
def liar() -> Iterator[Liar]:
    """A hub and the host of its bytes, honest until told otherwise."""
    liar = Liar()
    with serving(liar, "hub") as hub, serving(liar, "cdn") as cdn:
        liar.hub, liar.cdn = hub, cdn
        yield liar


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person at the keyboard; and no patience."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("HF_", "RWKV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("RWKV_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(patience, "FIRST", 0.01)
    monkeypatch.setattr(patience, "LONGEST", 0.1)
    monkeypatch.setattr(transfer, "SMALLEST", 64 << 10)
    monkeypatch.setattr(transfer, "SAVE_EVERY", 0.05)
    monkeypatch.setattr(transfer, "_TICK", 0.02)


@dataclass
class Bench:
    """A lying hub with one file, and what fetches it."""

    liar: Liar
    models: Path
    cache: Path
    log: Log
    content: bytes

    @property
    def place(self) -> Path:
        """Where the file belongs."""
        return self.models / FILE

    def fetcher(self, **changes: Any) -> Fetcher:
        """Make a fetcher."""
        token = changes.pop("token", None)
        given: dict[str, Any] = {
            "folder": self.models,
            "endpoint": self.liar.hub,
            "cache": self.cache,
            "web": Web(token),
            "watch": self.log,
            "manner": onefile.Manner(4, 3.0),
            **changes,
        }
        return Fetcher(**given)

    def fetch(self, asked: str = f"{REPO}:{FILE}", **changes: Any) -> Path:
        """Fetch the file."""
        return self.fetcher(**changes).fetch(parse(asked))

    def litter(self) -> list[str]:
        """List what lies in the models folder and is no model."""
        return sorted(p.name for p in self.models.rglob("*") if p.is_file() and p != self.place)


@pytest.fixture
def bench(liar: Liar, tmp_path: Path) -> Bench:
    """A hub with one file of a megabyte, and nothing here."""
    data = liar.add(REPO, FILE, content(1_000_003))
    return Bench(liar, tmp_path / "models", tmp_path / "hf" / "hub", Log(), data)
