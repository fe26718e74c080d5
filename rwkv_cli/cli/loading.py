"""What chat and generate share: choosing a model, saying so, loading it with progress, catching
signals.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rwkv_cli.cli.settings import Settings
from rwkv_cli.engine.load import DEMO, load_model
from rwkv_cli.hub import default_model, resolve
from rwkv_cli.places import models_folder
from rwkv_cli.render.progress import Progress, dim
from rwkv_cli.render.streams import note

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model
    from rwkv_cli.generation import Generation

DEMO_NOTICE = (
    "No model installed: using the built-in demo, a tiny model for trying things out (rwkv models)."
)


def choose_model(settings: Settings, *, quiet: bool) -> Path:
    """Find the weights file; say so when nobody asked for the demo and it is used all the same."""
    if settings.model:
        return resolve(settings.model, models_folder())
    path = default_model(models_folder())
    if path == DEMO and not quiet:
        note(dim(DEMO_NOTICE))
    return path


def load(path: Path, settings: Settings, *, quiet: bool) -> Model:
    """Load a model, with progress when it takes long."""
    if settings.threads:
        import torch

        torch.set_num_threads(settings.threads)
    progress = Progress(f"loading {path.stem}", "bytes", _size(path), enabled=not quiet)
    done = 0

    def count(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress.update(done)

    try:
        return load_model(path, settings.placement(), tokenizer=settings.tokenizer, progress=count)
    finally:
        progress.finish()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


class Interrupts:
    """What was asked for while an answer was generated.

    Attributes:
        terminated: The process shall end (SIGTERM, SIGHUP).
    """

    def __init__(self) -> None:
        self.count = 0
        self.terminated = False


@contextmanager
def interruptible(generation: Generation) -> Iterator[Interrupts]:
    """While this lasts, Ctrl-C ends the answer cleanly, and a second one ends the program.

    Handlers only set a flag: the state is never left half-way through a token.
    """
    seen = Interrupts()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        seen.count += 1
        generation.interrupt()
        if seen.count > 1:
            raise KeyboardInterrupt

    def on_terminate(number: int, frame: FrameType | None) -> None:
        seen.terminated = True
        generation.interrupt()

    wanted = {signal.SIGINT: on_interrupt, signal.SIGTERM: on_terminate}
    if hasattr(signal, "SIGHUP"):
        wanted[signal.SIGHUP] = on_terminate
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
