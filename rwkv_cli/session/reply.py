"""An answer in the making: it is shown as it comes, saved every second, and kept when it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rwkv_cli.engine.state import State
from rwkv_cli.errors import StorageError
from rwkv_cli.generation import INTERRUPT, Event, Generation
from rwkv_cli.tree import Turn

if TYPE_CHECKING:
    from rwkv_cli.session.conversation import Conversation

_SAVING = 1.0  # seconds between two drafts of an answer


@dataclass(frozen=True, slots=True)
class Draft:
    """A turn whose answer is being written.

    Attributes:
        turn: What is known of it.
        opening: The bytes that the template or the user put at the beginning of the answer.
        said: These, and what was said before of an answer that goes on.
        asked: The state where the answer begins.
        position: Tokens before the answer.
    """

    turn: Turn
    opening: bytes
    said: bytes
    asked: State
    position: int

    def finished(self, generation: Generation, answer: bytes) -> Turn:
        """Give the turn with the answer that was generated.

        Args:
            generation: What generated it.
            answer: All bytes of the answer.
        """
        state = generation.state
        return replace(
            self.turn,
            answer=answer.decode("utf-8", "replace"),
            reply=state.tokens[self.position :],
            finish=generation.finish or INTERRUPT,
            sampler=generation.sampler,
        )


class Reply:
    """An answer: iterate over it for the bytes to show.

    When the iteration ends, for whatever reason, what there is of the answer is in the
    conversation, and on the disk.

    Attributes:
        generation: What generates it.
        read: Tokens that were read for it.
        cached: Tokens of the prompt that did not have to be read.
        kept: Whether the conversation takes it in.
        turn: The turn, once it has ended.
        draft: What was there before.
    """

    def __init__(self, conversation: Conversation, draft: Draft, generation: Generation) -> None:
        self.generation, self.draft = generation, draft
        self.read = self.cached = 0
        self.kept = True
        self.turn: Turn | None = None
        self._conversation = conversation
        self._text, self._broken = bytearray(draft.said), False
        self._saved = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        """Give the answer as it is generated, without its leading white space; then keep the
        turn.

        Raises:
            StorageError: The turn could not be kept; it is in memory all the same.
        """
        events = iter(self.generation)
        try:
            shown = self.draft.said.lstrip()
            if shown:
                yield shown
            for event in self._events(events):
                self._text += event.data
                visible = event.data if shown else event.data.lstrip()
                shown = shown or visible
                if visible:
                    yield visible
                self._save_now_and_then()
        finally:
            with contextlib.suppress(AttributeError):
                events.close()  # type: ignore[attr-defined]  # ends the generation cleanly
            self._keep()

    def _events(self, events: Iterator[Event]) -> Iterator[Event]:
        """Give the events; a failure inside the model leaves a state that is nobody's."""
        try:
            yield from events
        except GeneratorExit:
            raise
        except BaseException:
            self._broken = True
            raise

    def _keep(self) -> None:
        """Take the turn into the conversation; without a state that broke off inside a token."""
        if not self.kept or self.turn is not None:
            return
        text = self._spoken() if self._broken else bytes(self._text)
        self.turn = self.draft.finished(self.generation, text)
        state = None if self._broken else self.generation.state
        self._conversation.keep(self.turn, state, self.draft.asked)

    def _spoken(self) -> bytes:
        """Give the answer as the state has it."""
        tokens = self.generation.state.tokens[self.draft.position :]
        return self.draft.opening + self._conversation.text_of(tokens)

    def _save_now_and_then(self) -> None:
        """Keep what there is on the disk, so that a crash costs a second of it."""
        if not self.kept or time.monotonic() - self._saved < _SAVING:
            return
        draft = self.draft.finished(self.generation, self._spoken())
        with contextlib.suppress(StorageError):  # the finished turn says it, if it still is so
            self._conversation.log.draft(draft)
        self._saved = time.monotonic()
