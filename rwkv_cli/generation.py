"""The loop from logits to text: draw, decode, look for stops. Knows tokens and bytes, no turns and
no screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rwkv_cli.engine.protocol import DrawPlan, Draws
from rwkv_cli.engine.state import State
from rwkv_cli.errors import RefusedError
from rwkv_cli.logprobs import Score, scored
from rwkv_cli.sampling import NOTHING, Choice, Penalties, Sampling, uniform
from rwkv_cli.text.stops import StopMatcher
from rwkv_cli.traces import Randomness, incomplete, sampler_text, uncounted_tokens

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model

END_OF_TEXT = 0

# Why a generation ended.
END, STOP, LENGTH, INTERRUPT = "end", "stop", "length", "interrupt"

# What a generation leaves behind in its state.
EXACT, CLEAN, DISPOSED = "exact", "clean", "nothing"


@dataclass(frozen=True, slots=True)
class Event:
    """One generated token.

    Attributes:
        token: Its id.
        data: The bytes that can be shown now: empty while they may belong to a stop string, and
            then those of several tokens at once.
    """

    token: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Step:
    """The moment before a token whose bytes may yet turn out to begin a stop string."""

    start: int
    data: bytes
    state: State
    penalties: Penalties
    tail: bytes


class Generation:
    """Generates from a state, token by token; iterate over it once.

    The state it is given is taken over and advanced. Whenever the iteration ends, be it because the
    reader goes away, the text of `state` is exactly the text that was given out: after a stop
    string it is rolled back to before it.

    Args:
        model: Who generates.
        state: Where it begins.
        sampling: How tokens are drawn.
        randomness: Where random numbers come from.
        max_tokens: How many at most.
        stops: Texts that end it.
        leave: `EXACT`: the state's text is the text given out. `CLEAN`: besides, what may begin a
            stop string is left out when the length cuts it, since the turn of a conversation must
            not end in half of the next one's beginning. `DISPOSED`: nobody wants the state
            afterwards, so nothing is kept to roll it back.
        logprobs: How many of the likeliest tokens `scores` tells with each; None keeps no scores.

    Attributes:
        state: The state now.
        finish: "end" (the model ended), "stop" (a stop string), "length" or "interrupt"; None
            while it runs.
        count: Tokens generated so far.
        sampling: How tokens are drawn.
        randomness: Where random numbers come from.
        logprobs: As given.
        pending: A token that was drawn and shown, and is still to be fed; only between `step` and
            feeding it.
    """

    def __init__(
        self,
        model: Model,
        state: State,
        sampling: Sampling,
        randomness: Randomness,
        *,
        max_tokens: int,
        stops: Sequence[bytes] = (),
        leave: str = EXACT,
        logprobs: int | None = None,
    ) -> None:
        self.state, self.count, self.finish = state, 0, None
        self._leave = leave
        self.logprobs = logprobs
        self._scores: list[tuple[int, Score]] = []  # with the bytes there were before the token
        self.pending: int | None = None
        self._model, self.sampling, self.randomness = model, sampling, randomness
        self._left = max_tokens
        self._matcher = StopMatcher(stops)
        kept = state.attachments
        self._penalties = Penalties(kept.penalty_ids, kept.penalty_counts)
        self._tail = kept.tail
        self._given = 0  # bytes given out so far
        self._seen = 0  # bytes generated so far
        self._held: list[_Step] = []
        self._interrupted = False
        self._draws: Draws | None = None
        self._asked = False  # whether the engine was asked to draw
        self._following: int | None = None  # what it has drawn
        banned = [t for t in sampling.banned if 0 <= t < model.dims.vocab]
        self._never = np.concatenate((np.array(banned, dtype=np.intp), model.silent))

    finish: str | None

    def interrupt(self) -> None:
        """Ask it to end before the next token; safe to call from a signal handler."""
        self._interrupted = True

    def __iter__(self) -> Iterator[Event]:
        """Generate until the end, a stop, the length or an interrupt."""
        try:
            while self.finish is None:
                event = self.step()
                if event is not None:
                    self._feed()
                    yield event
            yield from self.end()
        except GeneratorExit:
            self.abandon()
            raise

    @property
    def scores(self) -> list[Score]:
        """How likely each token of the text was, when that was asked for; one that a stop string
        cuts in two is among them.
        """
        return [score for start, score in self._scores if start < self._given]

    def step(self) -> Event | None:
        """Draw the next token, without feeding it.

        Returns:
            What can be shown; None when the generation has ended, and `end` is to be called.
        """
        return self.take(self._draw()) if self.goes_on() else None

    def goes_on(self) -> bool:
        """Tell whether another token is to be drawn; if not, it has ended."""
        if self._interrupted:
            self.finish = INTERRUPT
        elif self._left <= 0:
            self.finish = LENGTH
        return self.finish is None

    def choice(self) -> Choice:
        """Say how the next token is to be drawn from the state's logits."""
        place = self.randomness
        u = uniform(place.seed, place.stream, self.state.position)
        return Choice(self.sampling, u, self._penalties, self._never)

    def take(self, token: int) -> Event | None:
        """Go on with a token that was drawn, without feeding it: that is left to who feeds several
        generations in one pass, `pending` being the token. For everyone else, iterating does it
        all.

        Args:
            token: As `Engine.choose` gives it.

        Returns:
            What can be shown; None when the generation has ended, and `end` is to be called.

        Raises:
            RefusedError: No token could be drawn.
        """
        if token < 0:
            raise RefusedError(NOTHING)
        if token == END_OF_TEXT:
            self.finish = END
            return None
        if self.logprobs is not None:
            assert self.state.logits is not None
            self._scores.append((self._seen, scored(self.state.logits, token, self.logprobs)))
        return self._take(token)

    def _feed(self) -> None:
        """Feed the token that was drawn; an engine that can draw gives the next one with it."""
        if self.pending is None:
            return
        token, self.pending = self.pending, None
        if not self._asked:
            self._draws, self._asked = self._model.engine.draws(self._plan()), True
        self._following = self._draws.follow(self.state, token) if self._draws else None
        if self._following is None:
            self._draws = None
            self._model.engine.decode([token], [self.state])

    def _plan(self) -> DrawPlan:
        place, penalties = self.randomness, self._penalties
        return DrawPlan(
            self.sampling,
            place.seed,
            place.stream,
            penalties.ids,
            penalties.counts,
            self._never,
            partial(uncounted_tokens, self._model.tokenizer, self._model.dims.vocab),
        )

    def abandon(self) -> None:
        """The reader went away: forget what was generated but not given out."""
        if self.finish is None:
            self.finish = INTERRUPT
            self._roll_back(self._seen, b"")
        self._attach()

    def end(self) -> Iterator[Event]:
        """Leave the state ready to be saved, and give out what was held back."""
        waiting = self._matcher.matched is None
        if waiting and self._leave == CLEAN and self.finish in (INTERRUPT, LENGTH):
            self._roll_back(self._seen, b"")
            self._attach()
            return
        rest = self._matcher.flush()
        self._given += len(rest)
        if waiting and self._matcher.matched is not None:  # a stop inside what a longer one held
            self.finish = STOP
            self._roll_back(self._seen, b"")
        self._attach()
        if rest:
            yield Event(self.state.tokens[-1], rest)

    def _draw(self) -> int:
        """Choose the next token, unless the engine did when it was fed the last one."""
        following, self._following = self._following, None
        if following is not None and following >= 0:
            return following
        return self._model.engine.choose([self.state], [self.choice()])[0]

    def _take(self, token: int) -> Event:
        """Look at a token's bytes; it is to be fed, unless they complete a stop string."""
        data = self._model.tokenizer.token_bytes(token)
        start, self._seen = self._seen, self._seen + len(data)
        self.count += 1
        self._left -= 1
        shown, stopped = self._matcher.feed(data)
        self._given += len(shown)
        if stopped:
            self.finish = STOP
            self._roll_back(start, data)
            return Event(token, shown)
        self._hold(start, data)
        self._penalties.record(token, data, self.sampling.penalty_decay)
        self.pending = token
        self._tail = incomplete(self._tail + data)
        return Event(token, shown)

    def _hold(self, start: int, data: bytes) -> None:
        """Keep the way back to every token whose bytes are held, and to no other."""
        if self._leave == DISPOSED:
            return
        held_from = self._seen - len(self._matcher.held)
        self._held = [s for s in self._held if s.start + len(s.data) > held_from]
        if self._matcher.held:
            step = _Step(start, data, self.state.clone(), self._penalties.copy(), self._tail)
            self._held.append(step)

    def _roll_back(self, start: int, data: bytes) -> None:
        """Return to the text before the stop string; a token that straddles its start is split."""
        if self._leave == DISPOSED:
            return
        for step in self._held:
            if step.start + len(step.data) > self._given:
                self.state, self._penalties, self._tail = step.state, step.penalties, step.tail
                start, data = step.start, step.data
                break
        before = data[: self._given - start]
        if before:
            ids = self._model.tokenizer.encode(before)
            self._model.advance(ids, self.state)
            for token in ids:
                text = self._model.tokenizer.token_bytes(token)
                self._penalties.record(token, text, self.sampling.penalty_decay)
        self._tail = incomplete(self._tail + before)

    @property
    def sampler(self) -> str:
        """How tokens are drawn, as a state keeps it."""
        return sampler_text(self.sampling, self.randomness)

    def _attach(self) -> None:
        """Leave with the state what a later generation needs to go on from it as if never
        interrupted.
        """
        if self._leave == DISPOSED:
            return
        self.state.attachments = replace(
            self.state.attachments,
            sampler=self.sampler,
            penalty_ids=self._penalties.ids,
            penalty_counts=self._penalties.counts,
            tail=self._tail,
        )
