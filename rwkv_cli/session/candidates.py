"""Several answers from one state, decoded as one batch: the weights are read once for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.generation import Generation
from rwkv_cli.session.reply import Draft
from rwkv_cli.tree import Turn


class Candidates:
    """Answers in the making: iterate until they all have ended.

    Args:
        model: Who answers.
        asked: The state where they all begin.
        drafts: A turn for each.
        generations: What generates each, from copies of that state.

    Attributes:
        texts: What there is of each answer.
    """

    def __init__(
        self,
        model: Model,
        asked: State,
        drafts: Sequence[Draft],
        generations: Sequence[Generation],
    ) -> None:
        self.asked = asked
        self._model, self._drafts, self.generations = model, drafts, generations
        self.texts = [bytearray(draft.said) for draft in drafts]

    def interrupt(self) -> None:
        """Ask all of them to end; safe to call from a signal handler."""
        for generation in self.generations:
            generation.interrupt()

    @property
    def turns(self) -> list[Turn]:
        """The turns, once they have ended."""
        rows = zip(self._drafts, self.generations, self.texts, strict=True)
        return [draft.finished(generation, bytes(text)) for draft, generation, text in rows]

    @property
    def states(self) -> list[State]:
        """The states after them."""
        return [generation.state for generation in self.generations]

    def __iter__(self) -> Iterator[int]:
        """Generate a token of each that has not ended, in one pass; give how many still run."""
        running = list(range(len(self.generations)))
        while running:
            running = [index for index in running if self._step(index)]
            pairs = [self.generations[index] for index in running]
            tokens = [g.pending for g in pairs if g.pending is not None]
            if tokens:
                fed = [g for g in pairs if g.pending is not None]
                self._model.engine.decode(tokens, [g.state for g in fed])
                for generation in fed:
                    generation.pending = None
            yield len(running)

    def _step(self, index: int) -> bool:
        """Draw the next token of one; False when it has ended."""
        generation = self.generations[index]
        event = generation.step() if generation.finish is None else None
        if event is not None:
            self.texts[index] += event.data
            return True
        for rest in generation.end():
            self.texts[index] += rest.data
        return False
