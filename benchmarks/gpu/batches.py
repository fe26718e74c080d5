"""How fast many sequences generate at once, their tokens drawn on the card or on the host, and what
reading beside them costs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from gpu.cards import Cards, wall
from gpu.models import SHAPES, random_weights
from gpu.passes import Fed, copied
from gpu.record import Unit, Values
from gpu.speed import attempt
from rwkv_cli.engine.cuda.device import overlap_pays
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.onehost import choose_on_host
from rwkv_cli.engine.state import State
from rwkv_cli.sampling import Choice, Penalties, Sampling

MODELS = ("v7-0.1b", "v7-1.5b")
SIZES = (8, 32, 64, 256)
GENERATED = 100  # tokens that each sequence has behind it
STEPS, STEPS_ON_HOST = 24, 4
PROMPT = 512  # tokens that are read beside sequences that generate
PROMPTS, LENGTH = 10, 100  # prompts that are read side by side, and tokens of each
READ = 1024  # tokens of a long prompt's pass
_GREEDY = Sampling(temperature=0.0, presence=0.0, frequency=0.0)


def units(cards: Cards) -> list[Unit]:
    """List the part's units."""
    return [Unit(f"{name} fp16", _bound(cards, name), 5) for name in MODELS]


def _bound(cards: Cards, name: str) -> Callable[[], Values]:
    return lambda: measured(cards, name)


def measured(cards: Cards, name: str, dtype: str = "fp16", sizes: Sequence[int] = SIZES) -> Values:
    """Measure a model."""
    shape = SHAPES[name]
    weights = random_weights(shape, dtype, cards.place)
    overlap = overlap_pays(shape.width, dtype)
    case = Case(cards, CudaEngine(cards.open(dtype, programmatic=overlap), weights))
    for size in sizes:
        yield f"{size} sequences", attempt(cards, case.batch, size)
    yield f"{sizes[-1]} and a prompt of {PROMPT}", attempt(cards, case.mixed, sizes[-1])
    yield f"{PROMPTS} prompts of {LENGTH}", attempt(cards, case.prompts)
    for how in (True, False):
        engine = CudaEngine(cards.open(dtype, programmatic=how), weights)
        said = "programmatic" if how else "plain"
        yield f"a pass of {READ}, {said} launches", attempt(cards, case.read, engine)
    del case, weights, engine
    gc.collect()
    if cards.place.type == "cuda":
        torch.cuda.empty_cache()


class Case:
    """Measures one engine.

    Args:
        cards: The card.
        engine: The engine.
    """

    def __init__(self, cards: Cards, engine: CudaEngine) -> None:
        self.cards, self.engine = cards, engine
        self._rng = np.random.default_rng(1)

    def tokens(self, count: int) -> list[int]:
        """Draw tokens."""
        return [int(t) for t in self._rng.integers(1, self.engine.dims.vocab, count)]

    @torch.inference_mode()
    def states(self, count: int) -> list[State]:
        """Make states in memory of their own, from whose logits tokens can be drawn."""
        state = self.engine.zero_state()
        self.engine.prefill(self.tokens(24), state)
        return [copied(self.engine, state) for _ in range(count)]

    def choices(self, count: int, sampling: Sampling) -> list[Choice]:
        """Make choices of sequences that have generated something, as of `sampling`'s defaults."""
        never = np.array([0], np.intp)
        made = []
        for _ in range(count):
            counts = np.ones(GENERATED, np.float32)
            penalties = Penalties(dict.fromkeys(self.tokens(2 * GENERATED)), counts)
            penalties = Penalties(penalties.ids[:GENERATED], counts)
            made.append(Choice(sampling, float(self._rng.random()), penalties, never))
        return made

    @torch.inference_mode()
    def batch(self, size: int) -> dict[str, Any]:
        """Measure a batch: the graph, and with tokens drawn on the card and on the host."""
        engine, states = self.engine, self.states(size)
        wanted = [True] * size
        found: dict[str, Any] = {}

        def step(tokens: Sequence[int]) -> None:
            engine.feed([[token] for token in tokens], states, wanted)

        step(self.tokens(size))
        step(self.tokens(size))  # captures
        fed = Fed(engine, states, [[token] for token in self.tokens(size)])
        found["graph tok/s"] = round(size / self.cards.time(fed.run), 1)
        for name, sampling in (("greedy", _GREEDY), ("sampled", Sampling())):
            choices = self.choices(size, sampling)
            step(engine.choose(states, choices))
            seconds = wall(lambda c=choices: [step(engine.choose(states, c)) for _ in range(STEPS)])
            found[f"{name} on the card, tok/s"] = round(STEPS * size / seconds, 1)
            if name == "sampled":
                found["of the graph"] = round(
                    found[f"{name} on the card, tok/s"] / found["graph tok/s"], 3
                )
                alone = wall(lambda c=choices: [engine.choose(states, c) for _ in range(8)]) / 8
                found["choose us"] = round(alone * 1e6, 1)
        found["sampled on the host, tok/s"] = self._on_host(states, choices)
        found["MB of a slot"] = round(engine.slot_bytes() / 1e6, 2)
        return found

    def _on_host(self, states: list[State], choices: list[Choice]) -> float:
        """Measure what was done before: all logits to the host, and drawing one after another."""
        engine, size = self.engine, len(states)

        def step() -> None:
            engine.decode(choose_on_host(states, choices), states)

        step()
        seconds = wall(lambda: [step() for _ in range(STEPS_ON_HOST)])
        return round(STEPS_ON_HOST * size / seconds, 1)

    @torch.inference_mode()
    def mixed(self, size: int) -> dict[str, Any]:
        """Measure a prompt that is read beside sequences that generate, and both apart."""
        engine, states = self.engine, self.states(size)
        prompt, wanted = self.tokens(PROMPT), [True] * (size + 1)
        singles = [[token] for token in self.tokens(size)]

        def together() -> None:
            fresh = engine.zero_state()
            engine.feed([*singles, prompt], [*states, fresh], wanted)
            engine.choose([fresh], self.choices(1, _GREEDY))

        def apart() -> None:
            fresh = engine.zero_state()
            engine.feed([prompt], [fresh], [True])
            engine.feed(singles, states, wanted[1:])
            engine.choose([fresh], self.choices(1, _GREEDY))

        found = {}
        for name, work in (("together", together), ("apart", apart)):
            work()
            work()
            found[f"{name}, ms"] = round(wall(lambda w=work: [w() for _ in range(5)]) / 5 * 1e3, 2)
        return found

    @torch.inference_mode()
    def prompts(self) -> dict[str, Any]:
        """Measure prompts that are read in one pass, and one after another."""
        engine, fed = self.engine, [self.tokens(LENGTH) for _ in range(PROMPTS)]

        def together() -> None:
            states = [engine.zero_state() for _ in fed]
            engine.feed(fed, states, [True] * PROMPTS)
            engine.choose(states, self.choices(PROMPTS, _GREEDY))

        def one_by_one() -> None:
            for tokens in fed:
                engine.prefill(tokens, engine.zero_state())

        found = {}
        for name, work in (("together", together), ("apart", one_by_one)):
            work()
            work()
            found[f"{name}, ms"] = round(wall(lambda w=work: [w() for _ in range(3)]) / 3 * 1e3, 2)
        return found

    @torch.inference_mode()
    def read(self, engine: CudaEngine) -> dict[str, Any]:
        """Measure a pass of a long prompt."""
        fed = Fed(engine, [engine.zero_state()], [self.tokens(READ)])
        return {"graph ms": round(self.cards.time(fed.run) * 1e3, 3)}
