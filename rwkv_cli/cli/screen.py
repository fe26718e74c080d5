"""What a chat shows: answers as they come, their figures, how far a long piece of work is."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rwkv_cli.cli.loading import Interrupts, interruptible
from rwkv_cli.generation import INTERRUPT, LENGTH
from rwkv_cli.render.markdown import Markdown
from rwkv_cli.render.progress import Progress, counted, speed
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import (
    STDOUT,
    Sink,
    Stage,
    TerminalSink,
    is_terminal,
    note,
    stdout_sink,
)
from rwkv_cli.render.style import dim, shows_colours, shows_styles
from rwkv_cli.render.thinking import Folded
from rwkv_cli.render.wrap import columns
from rwkv_cli.session import Reply
from rwkv_cli.tree import OPEN, Turn

_ENOUGH = 64  # tokens; reading fewer tells more about the start than about the speed


class Screen:
    """The terminal, or the pipe, that a chat is shown on.

    Args:
        quiet: Whether to say nothing but errors.
        interactive: Whether more than one answer is shown.
        verbose: Whether all figures follow an answer.

    Attributes:
        quiet: The same.
        markdown: Whether Markdown is rendered and thoughts are folded, where stdout is a terminal
            that can show it.
        footer: Whether a line of figures follows an answer.
        figures: All figures of the last answer.
        seconds_per_token: How long reading a token took; None before anything was read.
    """

    def __init__(self, *, quiet: bool, interactive: bool, verbose: bool) -> None:
        self.quiet, self.markdown = quiet, shows_styles(STDOUT)
        self.footer = interactive and is_terminal(STDOUT)
        self.figures = ""
        self.seconds_per_token: float | None = None
        self._interactive, self._verbose = interactive, verbose

    def answer(self, reply: Reply) -> Interrupts:
        """Show an answer as it comes; tell which signals came meanwhile."""
        began = time.monotonic()
        sink = self._sink(lambda: reply.generation.count)
        with interruptible(reply.generation) as interrupts:
            try:
                for data in reply:
                    sink.write(data)
                if self._interactive and not is_terminal(STDOUT):
                    sink.write(b"\n")  # more answers follow; a terminal's sink ends its lines
            finally:
                sink.close()
            seconds = time.monotonic() - began
        self._tell(reply, seconds)
        return interrupts

    def past(self, turn: Turn) -> None:
        """Show a turn of before."""
        if turn.finish == OPEN:
            note(dim(f"attached: {safe(turn.user)}"))
            return
        note(dim(f"> {_first_line(turn.user)}"))
        self.text(turn.answer.strip().encode("utf-8", "replace"))

    def text(self, data: bytes) -> None:
        """Show a whole answer."""
        sink = self._sink(None)
        sink.write(data)
        if self._interactive and not is_terminal(STDOUT):
            sink.write(b"\n")
        sink.close()

    @contextmanager
    def reading(self) -> Iterator[Callable[[int], None]]:
        """Show how far reading is, when it takes long."""
        began, last = time.monotonic(), 0
        progress = Progress("reading", "tokens", None, enabled=not self.quiet)

        def update(count: int) -> None:
            nonlocal last
            last = count
            progress.update(count)

        try:
            yield update
        finally:
            progress.finish()
        if last >= _ENOUGH:
            self.seconds_per_token = (time.monotonic() - began) / last

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int], None]]:
        """Show how many tokens there are, when it takes long."""
        progress = Progress(what, "tokens", None, enabled=not self.quiet)
        try:
            yield progress.update
        finally:
            progress.finish()

    def _sink(self, count: Callable[[], int] | None) -> Sink:
        sink = stdout_sink()  # finds out whether stdout is closed
        if not (self.markdown and is_terminal(STDOUT)):
            return sink
        told = None if self.quiet else count

        def stages(width: Callable[[], int]) -> Sequence[Stage]:
            return [Folded(told), Markdown(width, coloured=shows_colours(STDOUT))]

        return TerminalSink(stages=stages)

    def _tell(self, reply: Reply, seconds: float) -> None:
        """Say why the answer ended, if that needs a word, and what it took."""
        count, state = reply.generation.count, reply.generation.state
        read = f"read {reply.read:,}" + (f", {reply.cached:,} cached" if reply.cached else "")
        size = f"state {state.nbytes / 1e6:.1f} MB"
        sofar = f"{state.position:,} so far"
        self.figures = (
            f"{counted(count, 'token')} · {speed(count, seconds)} · {read}\n"
            f"{counted(state.position, 'token')} so far · {size}"
        )
        if self.quiet:
            return
        if not reply.kept:
            pass  # nothing goes on with it
        elif reply.generation.finish == INTERRUPT:
            note(dim("stopped; what there is of the answer is kept, /continue goes on with it"))
        elif reply.generation.finish == LENGTH:
            cut = f"cut at {counted(count, 'token')}"
            note(dim(f"{cut}; /continue goes on, -N or /set max_tokens allows more"))
        if self._verbose:
            note(dim(self.figures))
        elif self.footer:
            pace = speed(count, seconds).partition(",")[0]
            parts = [counted(count, "token"), pace, sofar, size]
            note(dim(fitted([*parts, read] if reply.read or reply.cached else parts)))


def fitted(parts: Sequence[str]) -> str:
    """Join as many parts as fit a line."""
    width = shutil.get_terminal_size().columns
    line = parts[0]
    for part in parts[1:]:
        if columns(line) + 3 + columns(part) < width:
            line = f"{line} · {part}"
    return line


def _first_line(text: str) -> str:
    """Give the beginning of a message, as much as fits a line."""
    line, *more = text.strip().split("\n")
    return safe(line[:72]) + (" …" if more or len(line) > 72 else "")
