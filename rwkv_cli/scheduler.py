"""Many generations at once: reading prompts and decoding share every pass over the weights.

States are of one size, so a place for one (a slot) serves any prompt. A step draws a token for
every answer in the making, then feeds these tokens together with as many tokens of prompts as one
pass takes: neither reading nor decoding waits for the other. What comes of a prompt does not depend
on what is computed beside it, as far as the engine promises that of the rows of a batch.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import LimitError, RwkvError, UsageError
from rwkv_cli.generation import Generation

EMPTY = "the prompt is empty"  # why there is nothing to answer

_SHARE = 4  # prompts get a pass of their own when less than this part of one is left for them

Begin = Callable[[State], Generation]


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt, and what is generated after it. It can be begun anew: what it gives is made afresh
    each time.

    Attributes:
        key: The caller's name for it.
        start: Makes the state where reading begins, which is taken over.
        prompt: Gives the tokens to be read, in pieces; none when the state expects an answer.
        answers: Each begins a generation from the state after the prompt, which it takes over.
    """

    key: object
    start: Callable[[], State]
    prompt: Callable[[], Iterable[Sequence[int]]]
    answers: Sequence[Begin]


@dataclass(slots=True)
class Making:
    """An answer in the making.

    Attributes:
        generation: What makes it.
        text: Its bytes so far.
    """

    generation: Generation
    text: bytearray = field(default_factory=bytearray)


class Work:
    """A job at work.

    Attributes:
        job: It.
        answers: Those that were begun, in order.
        prompt_tokens: How many tokens of the prompt were read.
        error: Why it was given up.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.answers: list[Making] = []
        self.prompt_tokens = 0
        self.error: RwkvError | None = None
        self._pieces: Iterator[Sequence[int]] = iter(())
        self._ahead: Sequence[int] = ()
        self._place = 0
        self._state: State | None = None

    def open(self) -> None:
        """Make its state, and look at the beginning of its prompt.

        Raises:
            UsageError: There is nothing to answer: no token, and none was read before.
        """
        self._state, self._pieces = self.job.start(), iter(self.job.prompt())
        self._look()
        if not self.reads and self._state.kept_logits is None:
            raise UsageError(EMPTY)

    @property
    def state(self) -> State:
        """The state that reads; the last answer takes it."""
        assert self._state is not None
        return self._state

    @property
    def reads(self) -> bool:
        """Whether there is more of the prompt."""
        return self._place < len(self._ahead)

    @property
    def left(self) -> int:
        """How many answers have not begun."""
        return len(self.job.answers) - len(self.answers)

    @property
    def is_done(self) -> bool:
        """Whether all answers have ended."""
        return not self.left and all(m.generation.finish is not None for m in self.answers)

    def take(self, count: int) -> Sequence[int]:
        """Give the next tokens of the prompt, at most so many."""
        taken = self._ahead[self._place : self._place + count]
        self._place += len(taken)
        self.prompt_tokens += len(taken)
        self._look()
        return taken

    def begin(self) -> Making:
        """Begin the next answer."""
        begin = self.job.answers[len(self.answers)]
        state = self.state if self.left == 1 else self.state.clone()
        if self.left == 1:
            self._state = None
        making = Making(begin(state))
        self.answers.append(making)
        return making

    def _look(self) -> None:
        """Go on to the next piece when one is used up, so that the last token is known as such."""
        while not self.reads and (piece := next(self._pieces, None)) is not None:
            self._ahead, self._place = piece, 0


class Source(Protocol):
    """Where jobs come from.

    Attributes:
        ended: Whether there are no more.
    """

    ended: bool

    def take(self, *, wait: bool) -> Job | None:
        """Give the next job.

        Args:
            wait: Whether there is nothing else to do: then it is worth waiting for a while.

        Returns:
            None when there is none now.
        """


class Listed:
    """A source of jobs that are all there."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs, self.ended = iter(jobs), False

    def take(self, *, wait: bool) -> Job | None:
        """Give the next job; nobody has to wait for it."""
        del wait
        job = next(self._jobs, None)
        self.ended = job is None
        return job


class Scheduler:
    """Runs jobs, as many at once as there are slots.

    When memory runs out it goes on with half the slots: what was in flight begins anew, since a
    pass that failed may have changed any of its states.

    Args:
        model: Who generates.
        slots: States that are kept at most; a job with several answers may need one more.

    Attributes:
        slots: How many there are now.
        generated: Tokens generated so far.
        read: Tokens of prompts read so far.
    """

    def __init__(self, model: Model, slots: int) -> None:
        self._model, self.slots = model, max(1, slots)
        self.generated = self.read = 0
        self._reading: deque[Work] = deque()
        self._read: deque[Work] = deque()  # whose answers have not all begun
        # Answers know nothing of their jobs: in a ring of references states would outlive both.
        self._making: list[tuple[Work, Making]] = []
        self._anew: deque[Job] = deque()
        self._over: list[Work] = []  # what has ended in this step
        self._stopped = False

    def interrupt(self) -> None:
        """Drop everything before the next step; safe to call from a signal handler."""
        self._stopped = True

    def run(self, source: Source) -> Iterator[list[Work]]:
        """Run jobs until there are no more: after each step, those that have ended in it. The
        failure of one is its `error`.
        """
        while not self._stopped:
            try:
                self._admit(source)
                if not (self._used or self._over or self._anew) and source.ended:
                    return
                self._draw()
                self._feed()
            except (MemoryError, LimitError) as error:
                self._halve(error)
            over, self._over = self._over, []
            yield over

    @property
    def _used(self) -> int:
        """Count the states that are kept: one for each prompt, one for each answer."""
        return len(self._reading) + len(self._read) + len(self._making)

    def _admit(self, source: Source) -> None:
        """Fill the slots: with more answers to what was read, then with new jobs."""
        self._begin_answers()
        while self._used < self.slots and len(self._over) < self.slots:
            idle = not self._used and not self._over
            job = self._anew.popleft() if self._anew else source.take(wait=idle)
            if job is None:
                return
            work = Work(job)
            self._reading.append(work)  # before it takes memory, so that it cannot be lost
            try:
                work.open()
            except LimitError:
                raise
            except RwkvError as error:
                self._reading.pop()
                self._give_up(work, error)
                continue
            if not work.reads:
                self._read.append(self._reading.pop())
            self._begin_answers()

    def _begin_answers(self) -> None:
        """Begin answers to what was read, as far as there are slots. The last one of a job takes
        its state, so that it needs none.
        """
        while self._read:
            work = self._read[0]
            if work.left > 1 and self._used >= self.slots and self._making:
                return
            self._making.append((work, work.begin()))
            if not work.left:
                self._read.popleft()

    def _draw(self) -> None:
        """Draw a token for every answer."""
        running = [pair for pair in self._making if pair[1].generation.goes_on()]
        generations = [making.generation for _, making in running]
        states, choices = [g.state for g in generations], [g.choice() for g in generations]
        tokens = self._model.engine.choose(states, choices) if running else []
        for (work, making), token in zip(running, tokens, strict=True):
            try:
                event = making.generation.take(token)
            except RwkvError as error:
                work.error = error
                continue
            if event is not None:
                making.text += event.data
                self.generated += 1
        self._take_out()

    def _take_out(self) -> None:
        """Take out the answers that have ended, and all of the jobs that are given up."""
        works = {id(work): work for work, _ in self._making}
        for work, making in self._making:
            if work.error is None and making.generation.finish is not None:
                for rest in making.generation.end():
                    making.text += rest.data
        going = [
            (work, making)
            for work, making in self._making
            if work.error is None and making.generation.finish is None
        ]
        read = deque(work for work in self._read if work.error is None)
        over = [work for work in works.values() if work.error is not None or work.is_done]
        self._over += over
        self._making, self._read = going, read

    def _feed(self) -> None:
        """Feed what was drawn, and parts of prompts: in one pass where it has room for both."""
        drawn = [m.generation for _, m in self._making if m.generation.pending is not None]
        chunk = self._model.engine.chunk
        room = chunk if len(drawn) % chunk > chunk - chunk // _SHARE else -len(drawn) % chunk
        prompts = list(self._parts(room or chunk))
        while drawn:
            some, drawn = drawn[:chunk], drawn[chunk:]
            fits = not drawn and len(some) + sum(len(fed) for _, fed in prompts) <= chunk
            self._pass(some, prompts if fits else [])
            prompts = [] if fits else prompts
        if prompts:
            self._pass([], prompts)

    def _parts(self, room: int) -> Iterator[tuple[Work, Sequence[int]]]:
        """Share room between prompts; one that is not through gives way to the others."""
        for _ in range(len(self._reading)):
            if not room:
                return
            work = self._reading[0]
            try:
                taken = work.take(room)
            except LimitError:
                raise
            except RwkvError as error:
                self._give_up(self._reading.popleft(), error)
                continue
            self._reading.popleft()
            room -= len(taken)
            self.read += len(taken)
            (self._reading if work.reads else self._read).append(work)
            yield work, taken

    def _pass(
        self, drawn: Sequence[Generation], prompts: Sequence[tuple[Work, Sequence[int]]]
    ) -> None:
        """Feed a token to each of some answers, and tokens to prompts."""
        tokens: list[Sequence[int]] = [[g.pending] for g in drawn if g.pending is not None]
        tokens += [fed for _, fed in prompts]
        states = [*(g.state for g in drawn), *(work.state for work, _ in prompts)]
        wanted = [*(True for _ in drawn), *(not work.reads for work, _ in prompts)]
        self._model.engine.feed(tokens, states, wanted)
        for generation in drawn:
            generation.pending = None

    def _give_up(self, work: Work, error: RwkvError) -> None:
        work.error = error
        self._over.append(work)

    def _halve(self, error: Exception) -> None:
        """Begin anew what is in flight, with half the slots; give it up when it was alone."""
        works = {id(work): work for work, _ in self._making}
        works |= {id(work): work for work in (*self._read, *self._reading)}
        self._making, self._read, self._reading = [], deque(), deque()
        if len(works) <= 1:
            limit = error if isinstance(error, LimitError) else LimitError("memory ran out")
            for work in works.values():
                self._give_up(work, limit)
        else:
            self._anew.extendleft(work.job for work in reversed(works.values()))
        self.slots = max(1, min(self.slots, len(works)) // 2)
        works.clear()
        gc.collect()  # works and their answers refer to each other, and keep their states
