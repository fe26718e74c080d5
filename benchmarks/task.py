"""What is measured, what an engine is to the comparison, and the files engines read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from processes import Run
from shapes import MODELS

HERE = Path(__file__).parent
RUNNERS = HERE / "runners"
PROMPT = "Once upon a time there was a little girl who lived in a small house near"  # 16 tokens
GREEDY = 8  # tokens of a text that is compared


@dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
        what: "decode", "prefill", "batch", "start" or "greedy".
        tokens: How many are read; of a batch, by each sequence.
        batch: Sequences side by side.
    """

    what: str
    tokens: int
    batch: int = 1

    @property
    def name(self) -> str:
        """What the record calls it."""
        return f"batch {self.batch}" if self.what == "batch" else self.what


class Engine(Protocol):
    """One program in one precision."""

    @property
    def name(self) -> str:
        """What the record calls it."""

    def missing(self) -> str | None:
        """Say why it cannot run here; None when it can."""

    def does(self, model: str, task: Task) -> bool:
        """Tell whether it has what a task needs."""

    def file(self, model: str, folder: Path) -> Path:
        """Give its weights file of a model, made first where it is missing."""

    def command(self, file: Path, task: Task) -> list[str]:
        """Give the command that measures a task."""

    def read(self, run: Run, task: Task) -> Any:
        """Give tokens a second; seconds of a start; the bytes of a greedy text."""


def ensure(model: str, folder: Path) -> Path:
    """Give the checkpoint of a model, drawn first where it is missing."""
    how = ["--folder", str(folder), "--models", model]
    return made(folder / f"{model}.safetensors", [HERE / "synthetic.py", *how])


def made(target: Path, script: list[str | Path]) -> Path:
    """Give a file, made first where it is missing by a Python process.

    Not by this one: what a process holds when it starts another counts as the other's memory.
    """
    if not target.exists():
        subprocess.run([sys.executable, *map(str, script)], check=True)
    return target


def version_of(model: str) -> str:
    """Give the version of a synthetic model; empty for any other."""
    return MODELS[model].version if model in MODELS else ""


def figure(run: Run, task: Task) -> Any:
    """Read what a runner of this folder measured."""
    if task.what == "start":
        return run.first_s
    last = json.loads(run.output.splitlines()[-1])
    return bytes.fromhex(last["text"]) if task.what == "greedy" else last["rate"]
