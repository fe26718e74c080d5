"""Times a loaded model: reading, generating, and states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from rwkv_cli.bench.plan import Plan
from rwkv_cli.bench.rows import Engine, Row
from rwkv_cli.bench.text import passage

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model
    from rwkv_cli.engine.state import State

_WARM_UP = 8  # steps of a decode that are not counted, before the first repeat
_PIECE = 8192  # tokens of a text handed over at once

# Told before each piece of work: what it is, and how much of it is done, from 0 to 1.
Tell = Callable[[str, float], None]


class Timing:
    """Measures one loaded model.

    Args:
        model: The model.
        engine: What it is called in the results.
        plan: What to measure.
        folder: Where state files may be written.
        tell: Hears what goes on.
    """

    def __init__(self, model: Model, engine: Engine, plan: Plan, folder: Path, tell: Tell) -> None:
        self._model, self._engine, self._plan = model, engine, plan
        self._folder, self._tell = folder, tell

    def rows(self) -> Iterator[Row]:
        """Measure everything of the plan."""
        for depth in self._plan.depths:
            if depth == 0:
                yield from self._at(self._model.zero_state())
            else:
                state, rows = self._reached(depth)
                yield from rows
                yield from self._at(state)
        if self._plan.state is not None:
            state = self._model.load_state(self._plan.state)
            yield from self._states(state)
            yield from self._at(state)

    def _at(self, base: State) -> Iterator[Row]:
        for count in self._plan.prompts:
            yield self._prefill(count, base)
        for count in self._plan.lengths:
            for batch in self._plan.batches:
                yield self._decode(count, batch, base)

    def _prefill(self, count: int, base: State) -> Row:
        """Time reading, after once that is not counted."""
        tokens = self._text(count, base.position)
        label = f"prefill {count:,}" + _at_depth(base)
        runs = []
        for repeat in range(-1, self._plan.repeats):
            self._tell(label, (repeat + 1) / (self._plan.repeats + 1))
            state = base.clone()
            begin = perf_counter()
            self._model.engine.prefill(tokens, state)
            runs.append((perf_counter() - begin) / count)
        return Row("prefill", tuple(runs[1:]), self._engine, count, base.position)

    def _decode(self, count: int, batch: int, base: State) -> Row:
        """Time generating, step by step; the tokens are given, so that every engine does the same
        work, and none is drawn.
        """
        rows = [self._text(count, base.position + 7 * sequence) for sequence in range(batch)]
        steps = list(zip(*rows, strict=True))
        label = f"decode {count:,}" + _at_depth(base) + (f" ×{batch}" if batch > 1 else "")
        decode, taken = self._model.engine.decode, []
        for step in steps[:_WARM_UP]:
            decode(step, [base.clone() for _ in range(batch)])
        for repeat in range(self._plan.repeats):
            states = [base.clone() for _ in range(batch)]
            times = []
            for done, step in enumerate(steps):
                if done % 16 == 0:
                    self._tell(label, (repeat + done / count) / self._plan.repeats)
                begin = perf_counter()
                decode(step, states)
                times.append((perf_counter() - begin) / batch)
            taken.append(tuple(times))
        runs = tuple(sum(times) / count for times in taken)
        return Row("decode", runs, self._engine, count, base.position, batch, tuple(taken))

    def _reached(self, depth: int) -> tuple[State, list[Row]]:
        """Read up to a depth, save the state, and go on from the file."""
        label, state = f"reading {depth:,} tokens", self._model.zero_state()
        tokens = self._text(depth, 0)
        pieces = (tokens[i : i + _PIECE] for i in range(0, depth, _PIECE))
        begin = perf_counter()
        self._model.advance_stream(pieces, state, lambda done: self._tell(label, done / depth))
        row = Row("reread", (perf_counter() - begin,), self._engine, depth, depth)
        rows = list(self._states(state))
        return self._model.load_state(self._file()), [row, *rows]

    def _states(self, state: State) -> Iterator[Row]:
        """Time saving a state, durably, and loading it."""
        self._tell(f"saving and loading the state of {state.position:,} tokens", 0.0)
        file = self._file()
        works: dict[str, Callable[[], object]] = {
            "state_save": lambda: state.save(file),
            "state_load": lambda: self._model.load_state(file),
        }
        for test, work in works.items():
            work()  # once that is not counted: code that was never used has to be imported
            runs = tuple(_seconds(work) for _ in range(self._plan.repeats))
            size = file.stat().st_size
            yield Row(test, runs, self._engine, depth=state.position, nbytes=size)

    def _file(self) -> Path:
        return self._folder / "bench.rwkvstate"

    def _text(self, count: int, start: int) -> list[int]:
        return passage(self._model.tokenizer, count, start, self._plan.text)


def _seconds(work: Callable[[], object]) -> float:
    begin = perf_counter()
    work()
    return perf_counter() - begin


def _at_depth(base: State) -> str:
    return f" at {base.position:,}" if base.position else ""
