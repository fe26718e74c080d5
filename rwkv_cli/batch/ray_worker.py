"""A worker of a Ray cluster: one engine, and the rows that are in flight on it. What comes in and
what goes out is JSON.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from rwkv_cli.batch.row import Request
from rwkv_cli.batch.wire import packed_answer, unpacked_request
from rwkv_cli.errors import RwkvError
from rwkv_cli.version import __version__

if TYPE_CHECKING:
    from rwkv_cli.batch.running import Runner
    from rwkv_cli.engine.model import Model

_Waiting = tuple[Request, "asyncio.Future[bytes]"]


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker loads, as plain values that are JSON.

    Attributes:
        path: The weights file, at the same place on all machines; None is the built-in demo, which
            each has where it is installed.
        strategy: A strategy string; None leaves it to the short forms.
        device: "cpu" or "cuda"; None is a card where the worker has one.
        dtype: The precision; None keeps the file's.
        engine: "native" or "torch"; None leaves it open.
        kernels: "torch" or "cuda"; None leaves it open.
        threads: On a CPU; None is one for each core, and no more than Ray grants processors.
        vram: Bytes of a card that may be used; None is all that is free.
        ram: The same of memory.
        tokenizer: Name or file; None takes the model's own.
        loras: Files to merge, at the same places on all machines, each with its alpha or None.
        slots: Rows in flight in an engine; None is as many as its own memory has room for.
        state: The file of a saved state that rows go on from, at the same place on all machines.
        prefix: Tokens that most prompts begin with.
        prefix_state: The saved state that those go on from.
    """

    path: str | None
    strategy: str | None = None
    device: str | None = None
    dtype: str | None = None
    engine: str | None = None
    kernels: str | None = None
    threads: int | None = None
    vram: int | None = None
    ram: int | None = None
    tokenizer: str | None = None
    loras: Sequence[tuple[str, float | None]] = ()
    slots: int | None = None
    state: str | None = None
    prefix: Sequence[int] = ()
    prefix_state: str | None = None


class Worker:
    """Runs on a machine of the cluster, as an actor whose calls are answered as their rows end.

    It raises nothing of its own: failures are told in JSON, so that no exception of ours has to be
    pickled.
    """

    def __init__(self) -> None:
        self._waiting: SimpleQueue[_Waiting] = SimpleQueue()
        self._running: dict[int, asyncio.Future[bytes]] = {}

    async def load(self, job: bytes, processors: int) -> bytes:
        """Load the model, and begin to serve.

        Args:
            job: A `Job` as JSON.
            processors: How many of them Ray has granted.

        Returns:
            JSON: "version", and "identity", "notice" and "slots" of what was loaded, or
            "error", "hint" and "exit_code" that say why it cannot be.
        """
        from rwkv_cli.engine.room import room_for

        told: dict[str, Any] = {"version": __version__}
        try:
            wanted = Job(**json.loads(job))
            model = _loaded(wanted, processors)
            slots = wanted.slots or room_for(model.engine, model.dims.vocab)
            runner = _runner(model, wanted, slots)
        except RwkvError as error:
            told |= {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        else:
            told |= {"identity": asdict(model.identity), "notice": model.notice, "slots": slots}
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._serve, args=(runner, loop), daemon=True).start()
        return json.dumps(told).encode()

    async def answer(self, request: bytes) -> bytes:
        """Answer a row.

        Args:
            request: A `Request` as JSON.

        Returns:
            An `Answer` as JSON.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.put((unpacked_request(request), future))
        return await future

    def _serve(self, runner: Runner, loop: asyncio.AbstractEventLoop) -> None:
        """Run what is asked for, for ever. An exception ends it: the rows in flight fail with it,
        and whoever sent them makes another worker.
        """
        try:
            for answer in runner.run(self._asked()):
                future = self._running.pop(answer.index)
                loop.call_soon_threadsafe(future.set_result, packed_answer(answer))
        except Exception as error:
            reason = RuntimeError(f"{type(error).__name__}: {error}")
            for future in list(self._running.values()):
                loop.call_soon_threadsafe(future.set_exception, reason)

    def _asked(self) -> Iterator[Request]:
        """Give requests as they come; the runner reads them in a thread that may wait."""
        while True:
            request, future = self._waiting.get()
            self._running[request.index] = future
            yield request


def _loaded(job: Job, processors: int) -> Model:
    """Load what a job names."""
    from rwkv_cli.engine.load import load_model
    from rwkv_cli.engine.lorafile import Lora
    from rwkv_cli.engine.modelfile import DEMO
    from rwkv_cli.engine.strategy import Budgets, choose_strategy
    from rwkv_cli.native.machine import default_threads

    path = Path(job.path) if job.path else DEMO
    threads = job.threads or max(1, min(processors, default_threads()))
    placed = choose_strategy(job.strategy, job.device, job.dtype, job.engine, threads, job.kernels)
    strategy = replace(placed, budgets=Budgets(job.vram, job.ram))
    loras = [Lora(Path(file), alpha) for file, alpha in job.loras]
    return load_model(path, strategy, tokenizer=job.tokenizer, loras=loras)


def _runner(model: Model, job: Job, slots: int) -> Runner:
    from rwkv_cli.batch.running import Prefix, Runner

    if job.state:
        model.load_state(job.state)  # one that is missing leaves this machine out, and fails no row
    return Runner(model, slots=slots, prefix=Prefix(list(job.prefix), job.prefix_state))
