"""Several answers from one state, decoded as one batch: the weights are read once for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.generation import Generation
from rwkv_cli.scheduler import Begin, Job, Listed, Scheduler
from rwkv_cli.session.reply import Draft
from rwkv_cli.tree import Turn


class Candidates:
    """Answers in the making: iterate until they all have ended.

    Args:
        model: Who answers.
        asked: The state where they all begin.
        drafts: A turn for each.
        begins: Each begins a generation from a state, which it takes over.

    Attributes:
        asked: That state.
        generations: What generates each answer.
        texts: The answers, once they have ended.
    """

    def __init__(
        self, model: Model, asked: State, drafts: Sequence[Draft], begins: Sequence[Begin]
    ) -> None:
        self.asked = asked
        self._model, self._drafts, self._begins = model, drafts, begins
        self.generations: list[Generation] = []
        self.texts: list[bytes] = []
        self._interrupted = False

    def interrupt(self) -> None:
        """Ask all of them to end; safe to call from a signal handler."""
        self._interrupted = True
        for generation in self.generations:
            generation.interrupt()

    @property
    def turns(self) -> list[Turn]:
        """The turns, once they have ended."""
        rows = zip(self._drafts, self.generations, self.texts, strict=True)
        return [draft.finished(generation, text) for draft, generation, text in rows]

    @property
    def states(self) -> list[State]:
        """The states after them."""
        return [generation.state for generation in self.generations]

    def __iter__(self) -> Iterator[int]:
        """Generate a token of each that has not ended, in one pass; give how many still run.

        Raises:
            RwkvError: No token could be drawn, or memory ran out.
        """
        answers = [lambda state, begin=begin: self._begun(begin(state)) for begin in self._begins]
        job = Job(None, self._started, lambda: (), answers)
        for over in Scheduler(self._model, len(answers) + 1).run(Listed([job])):
            for work in over:
                if work.error is not None:
                    raise work.error
                said = zip(self._drafts, work.answers, strict=True)
                self.texts = [draft.said + bytes(making.text) for draft, making in said]
            yield sum(generation.finish is None for generation in self.generations)

    def _started(self) -> State:
        """Begin, or begin anew."""
        self.generations = []
        return self.asked.clone()

    def _begun(self, generation: Generation) -> Generation:
        self.generations.append(generation)
        if self._interrupted:
            generation.interrupt()
        return generation
