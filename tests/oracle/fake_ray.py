"""A Ray cluster of one process: actors whose calls end at random moments, and that die as they are
told to. It has the few names of the module `ray` that a crew uses.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from rwkv_cli.batch.row import Answer, Sample
from rwkv_cli.batch.wire import packed_answer, unpacked_request
from rwkv_cli.version import __version__

IDENTITY = {"arch": "v7", "weights": "w", "tokenizer": "t", "numerics": "n"}


def machine(name: str, *, cpus: float = 2, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    """A machine as `ray.nodes()` tells of it."""
    resources = {key: count for key, count in (("CPU", cpus), ("GPU", gpus)) if count}
    return {"NodeID": name, "NodeManagerAddress": name, "Alive": alive, "Resources": resources}


def answered(index: int, prompt: bytes, seed: int) -> Answer:
    """What any worker answers: a matter of the request alone."""
    return Answer(index, seed, len(prompt), (Sample(prompt[::-1] + b"%d" % seed, "end", 1),))


class FakeRay:
    """The module and the cluster.

    Args:
        machines: Its machines.
        seed: Of what is left to chance.
        death: Chance that a call kills its worker.
        poison: Rows that always do.
        told: What the worker of a machine says after loading, by the machine's name.
    """

    def __init__(
        self,
        machines: list[dict[str, Any]],
        *,
        seed: int = 0,
        death: float = 0.0,
        poison: set[int] | None = None,
        told: Callable[[str], dict[str, Any]] | None = None,
    ) -> None:
        self.machines, self.death, self.poison = machines, death, poison or set()
        self.told = told or (lambda name: {})
        self.random = random.Random(seed)
        self.actors: list[FakeActor] = []
        self.made: list[dict[str, Any]] = []
        self.most = self.deaths = 0
        self.states: dict[int, str | None] = {}
        self.is_shut = False
        strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        self.util = SimpleNamespace(scheduling_strategies=strategies)
        threading.Thread(target=self._go_on, daemon=True).start()

    def nodes(self) -> list[dict[str, Any]]:
        return self.machines

    def remote(self, kind: type) -> Any:
        def options(**asked: Any) -> Any:
            self.made.append(asked)
            return SimpleNamespace(remote=lambda: FakeActor(self, asked["scheduling_strategy"]))

        return SimpleNamespace(options=options)

    def kill(self, actor: FakeActor) -> None:
        actor.die()

    def shutdown(self) -> None:
        self.is_shut = True

    def _go_on(self) -> None:
        while not self.is_shut:
            busy = [actor for actor in list(self.actors) if actor.calls]
            if busy:
                self.random.choice(busy).end_one()
            time.sleep(0.0001)


class FakeActor:
    """A worker."""

    def __init__(self, ray: FakeRay, node: str) -> None:
        self.ray, self.node, self.dead, self.most = ray, node, False, 0
        self.calls: dict[int, tuple[Any, Future[bytes]]] = {}
        self.lock = threading.RLock()
        self.load = SimpleNamespace(remote=self._load)
        self.answer = SimpleNamespace(remote=self._answer)
        ray.actors.append(self)

    def _load(self, job: bytes, processors: int) -> Any:
        future: Future[bytes] = Future()
        told = {"version": __version__, "identity": IDENTITY, "notice": None, "slots": 4}
        future.set_result(json.dumps(told | self.ray.told(self.node)).encode())
        return SimpleNamespace(future=lambda: future)

    def _answer(self, data: bytes) -> Any:
        request, future = unpacked_request(data), Future[bytes]()
        with self.lock:
            if self.dead:
                future.set_exception(RuntimeError("the actor is dead. So it is"))
            else:
                assert request.index not in self.calls
                self.calls[request.index] = request, future
                self.ray.states[request.index] = request.state
                self.most = max(self.most, len(self.calls))
        self.ray.most = max(self.ray.most, sum(len(one.calls) for one in self.ray.actors))
        return SimpleNamespace(future=lambda: future)

    def end_one(self) -> None:
        with self.lock:
            if not self.calls:
                return
            index = self.ray.random.choice(list(self.calls))
            if index in self.ray.poison or self.ray.random.random() < self.ray.death:
                self.ray.deaths += 1
                self.die()
                return
            request, future = self.calls.pop(index)
        done = answered(index, request.prompt, request.seed)
        future.set_result(packed_answer(done))

    def die(self) -> None:
        with self.lock:
            self.dead = True
            calls, self.calls = self.calls, {}
        for _, future in calls.values():
            future.set_exception(RuntimeError("the actor is dead. So it is"))
