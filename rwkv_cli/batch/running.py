"""Answers requests with a model of this process: the scheduler, told what rows want."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from rwkv_cli.batch.ahead import Ahead
from rwkv_cli.batch.row import Answer, Request, RowError, Sample, TokenScore
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import LimitError, RefusedError, RwkvError, UsageError
from rwkv_cli.generation import DISPOSED, Generation
from rwkv_cli.logprobs import Score
from rwkv_cli.sampling import NOTHING
from rwkv_cli.scheduler import EMPTY, Begin, Job, Making, Scheduler, Work
from rwkv_cli.traces import Randomness

Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prefix:
    """What prompts have in common.

    Attributes:
        tokens: With which they begin.
        state: The saved state that they go on from; None is the beginning.
    """

    tokens: Sequence[int] = ()
    state: str | None = None


NO_PREFIX = Prefix()

_AT_ONCE = 1 << 16  # bytes of a prompt encoded ahead; a longer one is encoded as it is read


class Runner:
    """Answers requests.

    Args:
        model: Who answers.
        slots: States that are kept at most.
        prefix: Tokens with which most prompts begin: they are read once, and their state is copied.
        open_state: Gives a saved state by its name or path; the last one is kept.

    Attributes:
        from_prefix: Rows that were spared reading them.
    """

    def __init__(
        self,
        model: Model,
        *,
        slots: int,
        prefix: Prefix = NO_PREFIX,
        open_state: Callable[[str], State] | None = None,
    ) -> None:
        self._model, self._slots, self._prefix = model, slots, prefix
        self._open_state = lru_cache(maxsize=1)(open_state or model.load_state)
        self._after_prefix: State | None = None
        self.from_prefix = 0
        self._scheduler: Scheduler | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """Drop what is in flight and end; safe to call from a signal handler."""
        self._interrupted = True
        if self._scheduler is not None:
            self._scheduler.interrupt()

    def run(self, items: Iterable[Request | Answer], tick: Tick | None = None) -> Iterator[Answer]:
        """Answer requests, in the order in which they end.

        Args:
            items: Read in another thread, a little ahead. An answer among them passes by.
            tick: Called after each step with the tokens read and generated so far.

        Raises:
            RwkvError: The input cannot be read.
        """
        self._scheduler = scheduler = Scheduler(self._model, self._slots)
        if self._interrupted:
            return
        self._read_prefix()
        source = Ahead(items, self._job, count=self._slots)
        try:
            for over in scheduler.run(source):
                yield from source.passed()
                yield from map(self._answer, over)
                if tick:
                    tick(scheduler.read, scheduler.generated)
            yield from source.passed()
            if source.failure is not None and not self._interrupted:
                raise source.failure
        finally:
            source.close()

    def _read_prefix(self) -> None:
        """Read what the prompts share, once."""
        if self._prefix.tokens and self._after_prefix is None:
            state = self._beginning(self._prefix.state)
            self._model.advance_stream([self._prefix.tokens], state)
            self._after_prefix = state

    def _job(self, request: Request) -> Job:
        """Make a job of a request; called in the thread that reads ahead."""
        start: Callable[[], State] = partial(self._beginning, request.state)
        prompt = partial(self._encoded, request.prompt)
        if len(request.prompt) <= _AT_ONCE:
            ids = self._model.tokenizer.encode(request.prompt)
            shared = len(self._prefix.tokens)
            same = request.state == self._prefix.state and ids[:shared] == self._prefix.tokens
            if shared and same and len(ids) > shared:
                start, ids = self._beyond_prefix, ids[shared:]
            prompt = partial(self._checked, [ids] if ids else [])
        samples = range(request.samples)
        answers: list[Begin] = [partial(self._generation, request, stream) for stream in samples]
        return Job(request, start, prompt, answers)

    def _encoded(self, text: bytes) -> Iterator[Sequence[int]]:
        pieces = (text[at : at + _AT_ONCE] for at in range(0, len(text), _AT_ONCE))
        return self._checked(self._model.tokenizer.encode_stream(pieces))

    def _checked(self, pieces: Iterable[Sequence[int]]) -> Iterator[Sequence[int]]:
        for piece in pieces:
            if piece:
                self._model.check(piece)
                yield piece

    def _beginning(self, name: str | None) -> State:
        """Make the state that a row goes on from; what was left with it stays, but for the half of
        a character that the prompt goes on behind.
        """
        if name is None:
            return self._model.zero_state()
        state = self._open_state(name).clone()
        state.attachments = replace(state.attachments, tail=b"")
        return state

    def _beyond_prefix(self) -> State:
        assert self._after_prefix is not None
        self.from_prefix += 1
        return self._after_prefix.clone()

    def _generation(self, request: Request, stream: int, state: State) -> Generation:
        return Generation(
            self._model,
            state,
            request.sampling,
            Randomness(request.seed, stream),
            max_tokens=request.max_tokens,
            stops=request.stops,
            leave=DISPOSED,
            logprobs=request.logprobs,
        )

    def _answer(self, work: Work) -> Answer:
        """Say what came of a request."""
        request = work.job.key
        assert isinstance(request, Request)
        if work.error is not None:
            return Answer(request.index, request.seed, error=told(work.error))
        begun = len(self._prefix.tokens) if work.job.start == self._beyond_prefix else 0
        samples = tuple(self._sample(making, request) for making in work.answers)
        return Answer(request.index, request.seed, begun + work.prompt_tokens, samples)

    def _sample(self, making: Making, request: Request) -> Sample:
        generation, text = making.generation, bytes(making.text)
        scores = tuple(map(self._told_score, generation.scores))
        return Sample(
            text.lstrip() if request.chat else text,
            generation.finish or "",
            generation.count,
            scores if request.logprobs is not None else None,
        )

    def _told_score(self, score: Score) -> TokenScore:
        """Add the bytes of tokens."""
        data = self._model.tokenizer.token_bytes
        top = tuple((token, data(token), logprob) for token, logprob in score.top)
        return TokenScore(score.token, data(score.token), score.logprob, top)


def told(error: RwkvError) -> RowError:
    """Say why a row has no answer."""
    if isinstance(error, LimitError):
        return RowError("memory", error.message)
    if isinstance(error, UsageError) and error.message == EMPTY:
        return RowError("empty_prompt", error.message)
    if isinstance(error, RefusedError) and error.message == NOTHING:
        return RowError("no_token", error.message)
    return RowError("state", error.message)
