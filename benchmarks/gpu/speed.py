"""How fast models of the official shapes decode and read, beside what the card allows."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from shapes import Shape

from gpu.cards import Cards, wall
from gpu.models import SHAPES, random_weights
from gpu.passes import Ceilings, Fed, copied, plan
from gpu.record import Unit, Values
from gpu.steps import floor, recorded
from gpu.targets import DECODE, PREFILL, SHARES
from rwkv_cli.engine.cuda.device import overlap_pays
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.weights import Weights
from rwkv_cli.engine.state import State
from rwkv_cli.sampling import Sampling

SMALL = (1, 2, 4, 8)
LENGTHS = (128, 512, 1024, 4096)
_WARM = 24  # tokens that a state has seen before anything is timed
STEPS, DRAWN = 64, 200  # tokens of a generation that is timed, with the host at it and without


@dataclass(frozen=True)
class Case:
    """A model in a precision, and what is measured of it.

    Attributes:
        name: Of `SHAPES`.
        dtype: Its precision.
        batches: Sequences that are decoded side by side.
        lengths: Tokens that are read.
        least: Seconds without which it is not begun.
    """

    name: str
    dtype: str = "fp16"
    batches: tuple[int, ...] = (1, 8)
    lengths: tuple[int, ...] = ()
    least: float = 5.0


# What is wanted most comes first: a run may be cut off.
CASES = (
    Case("v7-1.5b", "fp16", (*SMALL, 64, 256), LENGTHS),
    Case("v7-7.2b", "fp16", (*SMALL, 64, 256), LENGTHS, 15),
    Case("v7-0.1b", "fp16", (*SMALL, 64, 256), LENGTHS),
    Case("v7-1.5b", "int8", (1, 8), (1024,)),
    Case("v7-7.2b", "int8", (1, 8), (1024,), 15),
    Case("v7-7.2b", "int4", (1, 8), (1024,), 15),
    Case("v7-2.9b", "fp16", (*SMALL, 64, 256), (1024,)),
    Case("v7-0.4b", "fp16", (*SMALL, 64, 256), (1024,)),
    Case("v7-1.5b", "int4", (1, 8), (1024,)),
    Case("v6-1.6b", "fp16", (1, 8), (1024,)),
    Case("v5-1.5b", "fp16", (1, 8), (1024,)),
    Case("v4-1.5b", "fp16", (1, 8), (1024,)),
    *(Case(name, kind) for name in ("v7-2.9b", "v7-0.4b", "v7-0.1b") for kind in ("int8", "int4")),
    Case("v6-1.6b", "int8"),
    Case("v4-1.5b", "int8"),
)  # fmt: skip


def units(cards: Cards) -> list[Unit]:
    """List the part's units."""
    ceilings = Ceilings(cards)
    return [
        Unit(f"{case.name} {case.dtype}", _bound(cards, case, ceilings), case.least)
        for case in CASES
    ]


def _bound(cards: Cards, case: Case, ceilings: Ceilings) -> Callable[[], Values]:
    return lambda: measured(cards, case, SHAPES[case.name], ceilings)


def measured(cards: Cards, case: Case, shape: Shape, ceilings: Ceilings) -> Values:
    """Measure a model."""
    read, matmul = ceilings.pair()
    yield "read GB/s", round(read / 1e9, 1)
    begin = time.monotonic()
    weights = random_weights(shape, case.dtype, cards.place)
    cards.wait()
    yield "seconds of drawing", round(time.monotonic() - begin, 2)
    loop = Loop(cards, case, weights, (read, matmul))
    for batch in case.batches:
        yield f"decode {batch}", attempt(cards, loop.decode, batch)
        if batch == 1:
            yield "decode 1, drawn on the card", attempt(cards, loop.drawn)
            if case.dtype == "fp16":
                other = "plain" if loop.overlap else "programmatic"
                yield f"decode 1, {other} launches", attempt(cards, loop.otherwise)
    for length in case.lengths:
        yield f"prefill {length}", attempt(cards, loop.prefill, length)
    del loop, weights
    gc.collect()
    if cards.place.type == "cuda":
        torch.cuda.empty_cache()


def attempt(cards: Cards, work: Callable[..., dict[str, Any]], *how: Any) -> dict[str, Any]:
    """Do one measurement, and say what went wrong where that concerns no other."""
    try:
        return work(*how)
    except Exception as error:  # whatever it is, the next one is not to suffer
        cards.wait()  # fails as well where the card no longer answers: then all is over
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


class Loop:
    """Measures one engine.

    Args:
        cards: The card.
        case: What is measured.
        weights: The model.
        ceilings: Bytes and operations a second of the card.
    """

    def __init__(
        self, cards: Cards, case: Case, weights: Weights, ceilings: tuple[float, float]
    ) -> None:
        self.cards, self.case, self.weights, self.ceilings = cards, case, weights, ceilings
        self.overlap = overlap_pays(weights.dims.width, case.dtype)
        self.engine = CudaEngine(cards.open(case.dtype, programmatic=self.overlap), weights)
        self._tokens = np.random.default_rng(1)

    def tokens(self, count: int) -> list[int]:
        """Draw tokens."""
        return [int(t) for t in self._tokens.integers(1, self.weights.dims.vocab, count)]

    @torch.inference_mode()
    def states(self, count: int) -> list[State]:
        """Make states in memory of their own that have seen some tokens."""
        state = self.engine.zero_state()
        self.engine.prefill(self.tokens(_WARM), state)
        return [copied(self.engine, state) for _ in range(count)]

    @torch.inference_mode()
    def decode(self, batch: int) -> dict[str, Any]:
        """Measure a batch: the graph alone, and the engine with the host at it."""
        engine, states = self.engine, self.states(batch)
        engine.decode(self.tokens(batch), states)  # builds and captures
        fed = Fed(engine, states, [[token] for token in self.tokens(batch)])
        least = floor(recorded(fed.program))
        graph = self.cards.time(fed.run)
        steps = STEPS if batch <= SMALL[-1] else -(-STEPS // 4)
        rows = [self.tokens(batch) for _ in range(steps)]
        engine.decode(rows[0], states)
        whole = wall(lambda: [engine.decode(row, states) for row in rows]) / steps
        return self._judged(batch, graph, least.seconds(*self.ceilings)) | {
            "engine tok/s": round(batch / whole, 1),
            "live share": None if least.live is None else round(least.live, 4),
            "floor MB": round(least.bytes / 1e6, 2),
            "kernels": len(fed.program.program.names),
        }

    def _judged(self, batch: int, graph: float, least: float) -> dict[str, Any]:
        """Put a time beside what there is to compare it with."""
        rate = batch / graph
        target = DECODE.get((self.case.name, self.case.dtype, batch))
        found = {
            "tok/s": round(rate, 1),
            "us": round(graph * 1e6, 1),
            "share of the floor": round(least / graph, 4),
        }
        if target:
            found["of the target"] = round(rate / target, 3)
        if batch == 1 and self.case.dtype == "fp16" and self.case.name in SHARES:
            found["share wanted"] = SHARES[self.case.name]
        return found

    @torch.inference_mode()
    def drawn(self) -> dict[str, Any]:
        """Measure a generation whose tokens are drawn on the card."""
        found = {}
        for name, sampling in (("greedy", Sampling(temperature=0.0)), ("sampled", Sampling())):
            state = self.states(1)[0]
            draws = self.engine.draws(plan(sampling))
            assert draws is not None
            token = draws.follow(state, self.tokens(1)[0])
            begin = time.perf_counter()
            for _ in range(DRAWN):
                assert token is not None
                assert token >= 0, "no token could be drawn"
                token = draws.follow(state, token)
            self.cards.wait()
            found[f"{name} tok/s"] = round(DRAWN / (time.perf_counter() - begin), 1)
        return found

    @torch.inference_mode()
    def otherwise(self) -> dict[str, Any]:
        """Measure the kind of launches that the model does not get, and compare their results."""
        device = self.cards.open(self.case.dtype, programmatic=not self.overlap)
        other = CudaEngine(device, self.weights)
        ours = self.states(1)[0]
        theirs = copied(self.engine, ours)
        same = all(
            np.array_equal(self.engine.decode([t], [ours]), other.decode([t], [theirs]))
            for t in self.tokens(24)
        )
        fed = Fed(other, self.states(1), [self.tokens(1)])
        rate = 1 / self.cards.time(fed.run)
        return {"tok/s": round(rate, 1), "same bits": same}

    @torch.inference_mode()
    def prefill(self, length: int) -> dict[str, Any]:
        """Measure reading a text."""
        engine, tokens = self.engine, self.tokens(length)
        engine.prefill(tokens, engine.zero_state())  # builds and captures
        seconds = wall(lambda: engine.prefill(tokens, engine.zero_state()))
        found = {"tok/s": round(length / seconds, 1), "ms": round(seconds * 1e3, 2)}
        chunk = next((c for c in engine.chunks if c <= length), None)
        if chunk is None:  # so few tokens are decoded one by one
            return found
        fed = Fed(engine, self.states(1), [self.tokens(chunk)])
        least = floor(recorded(fed.program))
        found["chunk ms"] = round(self.cards.time(fed.run) * 1e3, 3)
        found["share of the floor"] = round(
            least.seconds(*self.ceilings) / (found["chunk ms"] / 1e3), 4
        )
        target = PREFILL.get((self.case.name, self.case.dtype))
        if target and length >= 1024:
            found["of the target"] = round(found["tok/s"] / target, 3)
        return found
