"""Reading into a state for as long as there is something to read: minutes or weeks."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rwkv_cli.cli.app import Interrupted, Terminated
from rwkv_cli.cli.loading import interruptible
from rwkv_cli.cli.prompt import Prompt, raw_text
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.render.progress import Progress
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDIN, note
from rwkv_cli.render.style import dim

_BLOCK = 1 << 16  # bytes read at once, and held at most before they are encoded
_REMEMBERED = 1_000_000  # tokens, four bytes each: weeks of a log must not fill the memory
_IDLE = 1.0  # seconds of silence after which the lines that came are read


class Feeding:
    """Feeds a state from stdin or files.

    What comes is cut into tokens by lines: complete ones when stdin is silent or there is much,
    the rest at the end. So a state is up to date a second after the last line. What is held at any
    time is a block of text and the state, which remembers the last million tokens or two.

    Args:
        model: Who reads.
        state: Where reading goes on from.
        path: Where it is kept.
        every: Seconds between two saves.
        quiet: Show no progress.

    Attributes:
        state: The one after what was read to its end: reading that is broken off changes nothing.
        path: Where it is kept now: beside the old place when somebody else wrote there.
    """

    def __init__(
        self, model: Model, state: State, path: Path, *, every: float, quiet: bool
    ) -> None:
        self.state, self.path = state, path
        self.finish: str | None = None
        self._model, self._every, self._quiet = model, every, quiet
        self._seen = _mark(path)
        self._stopped = False
        self._saved, self._dirty = time.monotonic(), False

    def interrupt(self) -> None:
        """Stop after the tokens that are being read; safe to call from a signal handler."""
        self._stopped = True

    def run(self, prompt: Prompt) -> None:
        """Read to the end, saving now and then, and when it ends for whatever reason.

        Raises:
            StorageError: The disk refused.
        """
        progress = Progress("reading", "tokens", None, enabled=not self._quiet)
        before = self.state.position
        with interruptible(self) as interrupts:
            try:
                for block in self._blocks(prompt):
                    _, self.state = self._model.prefill(block, self.state)
                    self._dirty = True
                    progress.update(self.state.position - before)
                    if time.monotonic() - self._saved >= self._every:
                        self._save()
                    if self._stopped:
                        break
            finally:
                progress.finish()
                self._save()
        if interrupts.terminated:
            raise Terminated
        if interrupts.count:
            raise Interrupted

    def _blocks(self, prompt: Prompt) -> Iterator[Sequence[int]]:
        """Give tokens, no more than are computed at once: signals wait until they are read."""
        size = self._model.engine.chunk
        for text in self._texts(prompt):
            ids = self._model.tokenizer.encode(text)
            for start in range(0, len(ids), size):
                yield ids[start : start + size]

    def _texts(self, prompt: Prompt) -> Iterator[bytes]:
        """Give whole lines as they come, and at the end what is left."""
        held = bytearray()
        given = Prompt(prompt.words, prompt.files)
        for piece in raw_text(given):
            held += piece
            yield from _lines(held, least=_BLOCK)
        held += prompt.piped
        while prompt.piped and not self._stopped:
            if not select.select([STDIN], [], [], _IDLE)[0]:
                yield from _lines(held, least=0)
                continue
            block = os.read(STDIN, _BLOCK)
            if not block:
                break
            held += block
            yield from _lines(held, least=_BLOCK)
        if held:
            yield bytes(held)

    def _save(self) -> None:
        """Keep the state; never over one that somebody else wrote meanwhile."""
        if not self._dirty:
            return
        if _mark(self.path) != self._seen:
            self.path = _beside(self.path)
            note(dim(f"somebody else wrote that state; yours is {safe(self.path.stem)}"))
        if len(self.state.tokens) - self.state.tokens.forgotten > 2 * _REMEMBERED:
            self.state.tokens.forget(_REMEMBERED)
        self.state.save(self.path)
        self._seen, self._saved, self._dirty = _mark(self.path), time.monotonic(), False


def _lines(held: bytearray, least: int) -> Iterator[bytes]:
    """Take whole lines out of what is held, when there is that much."""
    end = held.rfind(b"\n") + 1
    if not end and least and len(held) >= 2 * least:
        end = _border(held)  # a line without an end
    if end and len(held) >= least:
        yield bytes(held[:end])
        del held[:end]


def _border(text: bytearray) -> int:
    """Find where the last character of UTF-8 begins, which may not be complete."""
    end = len(text) - 1
    while end > len(text) - 4 and text[end] & 0xC0 == 0x80:
        end -= 1
    return max(0, end)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Tell one content of a file from another."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _beside(path: Path) -> Path:
    """Give a name beside another that nobody has."""
    number = 2
    while (other := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return other
