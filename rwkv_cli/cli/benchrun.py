"""The measurements of `rwkv bench` in their order, engine after engine."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rwkv_cli.bench.ceilings import Ceilings, measure_ceilings, with_share
from rwkv_cli.bench.cost import dtype_of
from rwkv_cli.bench.fresh import fresh_process
from rwkv_cli.bench.machine import Busy
from rwkv_cli.bench.plan import Plan
from rwkv_cli.bench.record import describe_model, make_record
from rwkv_cli.bench.rows import Engine, Row
from rwkv_cli.bench.text import passage
from rwkv_cli.bench.timing import Timing
from rwkv_cli.cli.loading import load
from rwkv_cli.cli.settings import Settings
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.plan import automatic
from rwkv_cli.engine.segments import written
from rwkv_cli.errors import RefusedError
from rwkv_cli.native.library import UnavailableError

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model
    from rwkv_cli.render.steps import Steps

_PROMPT = 16  # tokens before the first one of a fresh process
_PATIENCE = 2.0  # seconds of loading after which once more is too much


class Run:
    """Everything that one call of the command measures.

    Args:
        path: The weights file.
        plan: What to measure.
        folder: Where state files may be written.
        tell: Hears what goes on.
    """

    def __init__(self, path: Path, plan: Plan, folder: Path, tell: Steps) -> None:
        self._path, self._plan, self._folder, self._tell = path, plan, folder, tell
        self._rows: list[Row] = []
        self._ceilings: dict[int, Ceilings] = {}
        self._no_ceilings: str | None = None
        self._model: Model | None = None

    def measure(self, settings: Settings) -> None:
        """Measure one engine; what was measured stays when this is interrupted."""
        self._forget()
        settings = _pinned(settings, self._path)
        loads = self._load(settings)
        model = self._model
        assert model is not None
        engine = _engine(model, settings)
        self._rows.append(Row("load", loads, engine))
        self._look_up(engine.threads)
        self._rows += self._fresh(settings, model, engine)
        self._rows += Timing(model, engine, self._plan, self._folder, self._tell).rows()
        self._look_up(engine.threads)

    def record(self, command: str, busy: Busy, *, complete: bool) -> dict[str, Any] | None:
        """Put everything together; None when nothing was measured."""
        if self._model is None or not self._rows:
            return None
        rows = [self._with_share(row, self._model) for row in self._rows]
        ceilings = self._no_ceilings or list(self._ceilings.values())
        model = describe_model(self._model)
        return make_record(command, model, rows, ceilings, busy, complete=complete)

    def _load(self, settings: Settings) -> tuple[float, ...]:
        """Load the model again and again while that is quick: the seconds of each time but the
        first, which may have to import, to pack, and to fetch the file from the disk.
        """
        times: list[float] = []
        while len(times) < 2 or (len(times) <= self._plan.repeats and sum(times[1:]) < _PATIENCE):
            self._tell("loading", len(times) / (self._plan.repeats + 1))
            self._forget()
            begin = perf_counter()
            self._model = load(self._path, settings, quiet=True)
            times.append(perf_counter() - begin)
        return tuple(times[1:])

    def _forget(self) -> None:
        """Let the model go: two of a large one would not fit side by side."""
        self._model = None
        gc.collect()

    def _fresh(self, settings: Settings, model: Model, engine: Engine) -> Iterator[Row]:
        """Start processes that load the model and answer: what a user waits for."""
        ids = passage(model.tokenizer, _PROMPT)
        words = b"".join(map(model.tokenizer.token_bytes, ids)).decode()
        flags = {
            "model": self._path,
            "tokenizer": settings.tokenizer,
            "strategy": settings.strategy,
            "device": settings.device,
            "dtype": settings.dtype,
            "engine": settings.engine,
            "kernels": settings.kernels,
            "threads": settings.threads,
            "vram-budget": settings.vram_budget,
            "ram-budget": settings.ram_budget,
        }
        given = [f"--{flag}={value}" for flag, value in flags.items() if value is not None]
        arguments = ["generate", *given, "-q", "--raw", "-N", "1", "--temperature", "0"]
        arguments += ["--ban", "0", "--", words]
        found = []
        for repeat in range(-1, self._plan.repeats):
            self._tell("first token", (repeat + 1) / (self._plan.repeats + 1))
            found.append(fresh_process("rwkv_cli.cli.probe", arguments))
        kept = found[1:]
        yield Row("first_token", tuple(one.first_s for one in kept), engine, tokens=_PROMPT)
        peaks = tuple(float(one.peak) for one in kept if one.peak is not None)
        if peaks:
            yield Row("peak_memory", peaks, engine)

    def _look_up(self, threads: int) -> None:
        """Measure what the machine gives, before and after each engine: it may change."""
        if self._no_ceilings is not None:
            return
        try:
            now = measure_ceilings(threads, self._tell)
        except UnavailableError as error:
            self._no_ceilings = error.message
            return
        before = self._ceilings.get(threads)
        self._ceilings[threads] = before.merged(now) if before else now

    def _with_share(self, row: Row, model: Model) -> Row:
        ceilings = self._ceilings.get(row.engine.threads)
        if ceilings is None or not row.engine.is_on_cpu:
            return row
        return with_share(row, model.arch, model.dims, ceilings)


def _pinned(settings: Settings, path: Path) -> Settings:
    """Settle where the model runs while no other fills the memory: every process that measures
    shall run it there.
    """
    asked = settings.placement()
    if not asked.auto:
        return settings
    chosen, _ = automatic(open_model(path), asked)
    if chosen.segments:
        return replace(settings, strategy=written(chosen.segments))
    return replace(settings, strategy=None, device=chosen.device, dtype=chosen.dtype)


def _engine(model: Model, settings: Settings) -> Engine:
    """Name what runs a model.

    Raises:
        RefusedError: The engine does not tell its precision.
    """
    name = model.engine.numerics
    dtype = dtype_of(name)
    if dtype is None:
        raise RefusedError(f"{name!r} is no arithmetic whose precision is known")
    is_on_cpu = {"cuda", "mps", "xpu"}.isdisjoint(name.split())
    return Engine(name, dtype, settings.threads or 1, is_on_cpu)
