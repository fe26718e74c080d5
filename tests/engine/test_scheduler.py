"""Many generations at once: what comes of a prompt depends on nothing beside it."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from oracle.models import needs_native
from oracle.scripted import CUTTING, scripted

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.errors import LimitError, RefusedError, UsageError
from rwkv_cli.generation import DISPOSED, Generation
from rwkv_cli.sampling import Sampling
from rwkv_cli.scheduler import Job, Listed, Scheduler, Work
from rwkv_cli.traces import Randomness

SAMPLING = Sampling(1.0, 0.9)
STOPS = (b"ab", b"\n\nUser")


def job(model: Model, tokens: Sequence[int], seed: int, length: int, answers: int = 1) -> Job:
    def begin(state: State, stream: int) -> Generation:
        place = Randomness(seed, stream)
        return Generation(
            model, state, SAMPLING, place, max_tokens=length, stops=STOPS, leave=DISPOSED
        )

    half = len(tokens) // 2
    pieces = [piece for piece in (tokens[:half], tokens[half:]) if piece]
    begins = [partial(begin, stream=stream) for stream in range(answers)]
    return Job(seed, model.zero_state, lambda: pieces, begins)


def alone(model: Model, tokens: Sequence[int], seed: int, length: int, stream: int = 0) -> bytes:
    """Generate one answer by itself."""
    _, state = model.prefill(tokens)
    place = Randomness(seed, stream)
    made = Generation(model, state, SAMPLING, place, max_tokens=length, stops=STOPS)
    return b"".join(event.data for event in made)


def prompts(count: int, vocab: int = 250, seed: int = 1) -> Iterator[tuple[list[int], int]]:
    """Give prompts of mixed lengths, and lengths of answers."""
    drawn = random.Random(seed)
    for _ in range(count):
        size = drawn.choice([1, 2, 7, 40, 200])
        yield [drawn.randrange(1, vocab) for _ in range(size)], drawn.choice([1, 3, 20])


def finished(model: Model, slots: int, jobs: list[Job]) -> list[Work]:
    return [work for over in Scheduler(model, slots).run(Listed(jobs)) for work in over]


@needs_native
@pytest.mark.parametrize("slots", [1, 3, 16, 200])
def test_every_answer_is_that_of_its_prompt_alone(model: Model, slots: int) -> None:
    wanted = list(prompts(12))
    jobs = [job(model, ids, seed, length, 2) for seed, (ids, length) in enumerate(wanted)]
    works = finished(model, slots, jobs)
    assert sorted(work.job.key for work in works) == list(range(12))  # type: ignore[type-var]
    for work in works:
        ids, length = wanted[work.job.key]  # type: ignore[call-overload]
        assert work.prompt_tokens == len(ids)
        if model.engine.exact_splits:
            said = [bytes(making.text) for making in work.answers]
            seed = int(str(work.job.key))
            assert said == [alone(model, ids, seed, length, stream) for stream in range(2)]


def test_neither_reading_nor_decoding_waits_for_the_other(model: Model) -> None:
    long = job(model, [5] * (12 * model.engine.chunk), 0, 1)
    short = [job(model, [7, seed], seed, 5) for seed in range(1, 9)]
    order = [work.job.key for work in finished(model, 4, [long, *short])]
    assert sorted(order) == list(range(9))  # type: ignore[type-var]
    assert order.index(0) > 2, "the long prompt held up the short ones"
    few = [work.job.key for work in finished(model, 2, [job(model, [5], 1, 400), long])]
    assert few[0] == 0, "decoding held up the prompt"


def test_memory_that_runs_out_costs_slots_and_no_answer(model: Model) -> None:
    class Tight:
        """An engine with room for three."""

        def __init__(self) -> None:
            self.failures = 0

        def __getattr__(self, name: str) -> object:
            return getattr(model.engine, name)

        def feed(self, tokens: list[list[int]], states: list[State], wanted: list[bool]) -> None:
            if len(states) > 3:
                model.engine.feed(tokens, states, wanted)  # a pass that fails half-way
                self.failures += 1
                raise MemoryError
            model.engine.feed(tokens, states, wanted)

    engine = Tight()
    tight = replace(model, engine=engine)  # type: ignore[arg-type]
    wanted = list(prompts(9))
    scheduler = Scheduler(tight, 8)
    jobs = [job(tight, ids, seed, length) for seed, (ids, length) in enumerate(wanted)]
    works = [work for over in scheduler.run(Listed(jobs)) for work in over]
    assert engine.failures > 0
    assert scheduler.slots < 8
    assert sorted(work.job.key for work in works) == list(range(9))  # type: ignore[type-var]
    free = {w.job.key: w for w in finished(model, 8, jobs)}
    for work in works:
        assert work.error is None
        if model.engine.exact_splits:
            assert work.answers[0].text == free[work.job.key].answers[0].text


def test_a_prompt_without_room_even_alone_is_given_up_and_others_go_on() -> None:
    model = scripted([2, 2, 2], [2])
    whole = model.engine.feed

    def feed(tokens: list[list[int]], states: list[State], wanted: list[bool]) -> None:
        if any(fed[:1] == [9] for fed in tokens):
            raise LimitError("no room")
        whole(tokens, states, wanted)

    model.engine.feed = feed  # type: ignore[method-assign]
    works = finished(model, 2, [job(model, [9], 0, 1), job(model, [2], 1, 1)])
    failed = {work.job.key: work.error is not None for work in works}
    assert failed == {0: True, 1: False}


@pytest.mark.parametrize("failure", [MemoryError, partial(LimitError, "no room")])
def test_a_job_that_finds_no_room_to_begin_comes_later(
    model: Model, failure: type[Exception]
) -> None:
    alive: list[weakref.ref[Work]] = []

    def start() -> State:
        # What was begun and dropped takes its room until nobody refers to it.
        if sum(work is not None and not work.is_done for work in (ref() for ref in alive)) > 3:
            raise failure()
        return model.zero_state()

    jobs = [replace(job(model, [1, 2], seed, 4), start=start) for seed in range(9)]
    begin = Work.open

    def opened(work: Work) -> None:
        alive.append(weakref.ref(work))
        begin(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "open", opened)
        ended = [(w.job.key, w.error) for w in finished(model, 8, jobs)]
    assert sorted(ended) == [(seed, None) for seed in range(9)]  # type: ignore[type-var]


def test_a_failure_of_one_is_its_own(model: Model) -> None:
    def refused() -> State:
        raise UsageError("no such state")

    def spoilt() -> State:
        state = model.zero_state()
        next(iter(state.arrays.values()))[:] = np.nan
        return state

    good = job(model, [3, 4], 0, 5)
    jobs = [good, replace(good, key=1, start=refused), replace(good, key=2, start=spoilt)]
    works = {work.job.key: work for work in finished(model, 4, jobs)}
    assert works[0].error is None
    assert isinstance(works[1].error, UsageError)
    assert isinstance(works[2].error, RefusedError)


def test_an_interrupt_drops_what_is_in_flight(model: Model) -> None:
    scheduler = Scheduler(model, 2)
    steps = scheduler.run(Listed([job(model, [3], seed, 50) for seed in range(4)]))
    next(steps)
    scheduler.interrupt()
    assert list(steps) == []


def test_stop_strings_and_held_bytes_end_up_as_alone() -> None:
    drawn = random.Random(3)
    for seed in range(30):
        script = [drawn.choice(CUTTING) for _ in range(12)]
        model = scripted(script, [2, 3])
        [work] = finished(model, 2, [job(model, [2, 3], seed, 12)])
        assert bytes(work.answers[0].text) == alone(model, [2, 3], seed, 12)


def test_the_state_of_an_answer_that_has_ended_is_given_up_at_once(model: Model) -> None:
    gc.disable()
    try:
        scheduler = Scheduler(model, 2)
        alive: list[weakref.ref[Generation]] = []
        for over in scheduler.run(Listed(job(model, [3], seed, 2) for seed in range(8))):
            alive += [weakref.ref(making.generation) for work in over for making in work.answers]
            del over
            assert sum(ref() is not None for ref in alive) <= 4
    finally:
        gc.enable()
