"""What chat and generate share: choosing a model, saying so, loading it with progress, catching
signals.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from rwkv_cli.checkpoints.filenames import model_name
from rwkv_cli.cli.settings import Settings
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.modelfile import DEMO
from rwkv_cli.errors import UsageError
from rwkv_cli.hub.names import DEMO_NAME, NotInstalledError, default_model, resolve
from rwkv_cli.hub.registry import read_registry
from rwkv_cli.places import chats_folder, models_folder, prefix_folder
from rwkv_cli.render.progress import Progress
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.store.budget import Budget

if TYPE_CHECKING:
    from rwkv_cli.engine.lorafile import Lora
    from rwkv_cli.engine.model import Model
    from rwkv_cli.engine.state import Attachments
    from rwkv_cli.sampling import Sampling
    from rwkv_cli.traces import Randomness

DEMO_NOTICE = "No model installed: using the tiny built-in demo (rwkv download gets a real one)."


def choose_model(settings: Settings, *, quiet: bool) -> Path:
    """Find the weights file; say so when nobody asked for the demo and it is used all the same, and
    when what the user said of models cannot be read.
    """
    if not quiet and (damage := read_registry().damage):
        note(f"rwkv: {safe(damage)}; other names and the default model are not known")
    if settings.model:
        try:
            return resolve(settings.model, models_folder())
        except NotInstalledError as missing:
            from rwkv_cli.cli.fetching import downloaded

            return downloaded(missing, quiet=quiet)
    path = default_model(models_folder())
    if path == DEMO and not quiet:
        note(dim(DEMO_NOTICE))
    return path


def open_budget(settings: Settings) -> Budget:
    """Say how much room the states of conversations and prompts may take."""
    return Budget(chats_folder(), prefix_folder(), limit=settings.state_room)


def checked_bans(ids: Sequence[int], vocab: int) -> tuple[int, ...]:
    """Give the tokens that --ban names.

    Raises:
        UsageError: The model has no such token.
    """
    for token in ids:
        if token >= vocab:
            raise UsageError(f"--ban {token} is outside the vocabulary of {vocab}")
    return tuple(ids)


def drawing(
    settings: Settings,
    bans: Sequence[int],
    model: Model,
    attachments: Attachments | None,
    template: str,
) -> tuple[Sampling, Randomness]:
    """Settle how tokens are drawn: what a saved state was generated with, unless a setting
    overrules it.

    Raises:
        UsageError: A setting is out of range, or a banned token does not exist.
    """
    from rwkv_cli.traces import Randomness, saved_sampler

    saved = saved_sampler(attachments) if attachments else None
    banned = checked_bans(bans, model.dims.vocab)
    sampling = settings.sampling(template, saved[0] if saved else None, banned)
    if saved and settings.seed is None:
        return sampling, saved[1]
    return sampling, Randomness(settings.seed_or_random())


def load(path: Path, settings: Settings, *, quiet: bool) -> Model:
    """Load a model, with progress when it takes long."""
    return Loading(path, settings).result(quiet=quiet)


class Loading:
    """A model that is being loaded while other things go on; only who waits for it sees how far
    it is.

    Attributes:
        name: What people call it.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.name = DEMO_NAME if path == DEMO else model_name(path)
        self._path, self._settings, self._done = path, settings, 0
        self._model: Model | BaseException | None = None
        self._thread = Thread(target=self._load)
        self._thread.start()

    def _load(self) -> None:
        settings = self._settings
        try:
            self._model = load_model(
                self._path,
                settings.placement(),
                tokenizer=settings.tokenizer,
                progress=self._count,
                loras=settings.loras(),
            )
        except BaseException as error:  # raised again where somebody waits for the model
            self._model = error

    def _count(self, nbytes: int) -> None:
        self._done += nbytes

    @property
    def status(self) -> str:
        """How far it is, in a few words; empty when it is there, or cannot be."""
        if self._model is not None:
            return ""
        size = _size(self._path)
        share = f" {min(99, 100 * self._done // size)} %" if size and self._done else ""
        return f"loading {safe(self.name)}{share}"

    def result(self, *, quiet: bool) -> Model:
        """Wait for the model, with progress when it takes long.

        Raises:
            RwkvError: It cannot be loaded.
        """
        progress = Progress(f"loading {self.name}", "bytes", _size(self._path), enabled=not quiet)
        try:
            while self._thread.is_alive():
                progress.update(self._done)
                self._thread.join(0.1)
        finally:
            progress.finish()
        model = self._model
        if isinstance(model, BaseException):
            raise model
        assert model is not None  # the thread has ended
        if not quiet:
            for text in [*_merged(self._settings.loras()), model.notice]:
                if text:
                    note(dim(safe(text)))
        return model


def _merged(loras: Sequence[Lora]) -> list[str]:
    """Say what was merged into a model."""
    if not loras:
        return []
    from rwkv_cli.engine.lorafile import described

    return [described(one) for one in loras]


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

    def raise_if_any(self) -> None:
        """End the process as it was asked to.

        Raises:
            Terminated: By SIGTERM or SIGHUP.
            Interrupted: By Ctrl-C.
        """
        from rwkv_cli.cli.app import Interrupted, Terminated

        if self.terminated:
            raise Terminated
        if self.count:
            raise Interrupted


class Interruptible(Protocol):
    """What can be asked to end."""

    def interrupt(self) -> None:
        """End before the next token; safe to call from a signal handler."""


@contextmanager
def interruptible(generation: Interruptible) -> Iterator[Interrupts]:
    """While this lasts, Ctrl-C ends the answer cleanly.

    Handlers only set a flag, however often: the state is never left half-way through a token.
    """
    seen = Interrupts()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        seen.count += 1
        generation.interrupt()

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
