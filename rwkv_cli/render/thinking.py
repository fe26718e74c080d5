"""The thoughts of a model before its answer, folded to one line that says how long they are."""

from __future__ import annotations

import time
from collections.abc import Callable

from rwkv_cli.render.progress import Progress, counted
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.text.thoughts import CLOSES, OPENS

_START, _THOUGHT, _BEHIND, _ANSWER = range(4)


class Folded:
    """Lets the answer through, and of a thought before it only that there is one.

    Args:
        count: Tells how many tokens there are so far; None folds a thought without a word.
    """

    def __init__(self, count: Callable[[], int] | None) -> None:
        self._count, self._place, self._held = count, _START, ""
        self._line = Progress("thinking", "tokens", None, enabled=count is not None)
        self._began, self._thought = 0.0, False

    def feed(self, text: str) -> str:
        """Give what of these characters belongs to the answer."""
        self._held += text
        if self._place == _START:
            self._look_for_a_thought()
        if self._place == _THOUGHT:
            self._look_for_its_end()
        if self._place == _BEHIND:
            self._held = self._held.lstrip()
            self._place = _ANSWER if self._held else _BEHIND
        return self._taken() if self._place == _ANSWER else ""

    def flush(self) -> str:
        """Give what is held: the answer has ended, perhaps inside its thought."""
        if self._place == _THOUGHT:
            self._thought = self._thought or bool(self._held.strip())
            self._tell("still thinking at the end")
        return self._taken() if self._place in (_START, _ANSWER) else ""

    def _taken(self) -> str:
        text, self._held = self._held, ""
        return text

    def _look_for_a_thought(self) -> None:
        text = self._held.lstrip()
        if text.startswith(OPENS):
            self._place, self._held = _THOUGHT, text[len(OPENS) :]
            self._began = time.monotonic()
        elif not OPENS.startswith(text):
            self._place = _ANSWER

    def _look_for_its_end(self) -> None:
        at = self._held.find(CLOSES)
        inside = self._held[: at if at >= 0 else -len(CLOSES)]
        self._thought = self._thought or bool(inside.strip())
        if at < 0:
            self._held = self._held[-len(CLOSES) :]
            if self._count:
                self._line.update(self._count())
            return
        self._place, self._held = _BEHIND, self._held[at + len(CLOSES) :]
        self._tell("thought")

    def _tell(self, what: str) -> None:
        self._line.finish()
        if self._count and self._thought:  # a model told to answer at once has an empty thought
            seconds = time.monotonic() - self._began
            words = f"{what}: {counted(self._count(), 'token')}, {seconds:.1f} s; /raw shows it"
            note(dim(words))
