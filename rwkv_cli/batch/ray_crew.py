"""The workers of a batch in a Ray cluster: one at each place, with one and the same model, replaced
when they die. Ray starts them, moves the bytes and notices deaths.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

from rwkv_cli.batch.ray_places import Place, cards_wanted, places
from rwkv_cli.batch.ray_terms import commonest, difference, trouble
from rwkv_cli.batch.ray_worker import Job, Worker
from rwkv_cli.errors import RwkvError, StorageError, UsageError

_LOOK = 5.0  # seconds between two looks at the machines of the cluster
_SETTLE = 60.0  # seconds that the first worker waits for the others, before rows are handed out
_PATIENCE = 8  # deaths at a place without an answer between them, after which it is given up
_MANY_CALLS = 1 << 16  # of a worker at once: more than rows that are ever sent to it


@dataclass(eq=False, slots=True)
class Member:
    """A worker.

    Attributes:
        place: Where it runs.
        actor: Ray's handle of it.
        identity: What it has loaded; None until then.
        slots: How many rows it runs at once; known from then on.
        rows: How many rows it was sent and has not answered.
        alone: Whether it runs a row that nothing may run beside.
    """

    place: Place
    actor: Any
    identity: Mapping[str, str] | None = None
    slots: int = 0
    rows: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Landed:
    """A call that has ended.

    Attributes:
        member: Who was called.
        errand: What was to be done, as it was given to `send`; None for loading.
        future: What came of it.
    """

    member: Member
    errand: Any
    future: Future[bytes]


@dataclass(slots=True)
class _Record:
    """What is known of a place.

    Attributes:
        deaths: Of workers there, since one of them answered.
        next_try: When the next one may be made.
        closed: Why none is made any more.
    """

    deaths: int = 0
    next_try: float = 0.0
    closed: RwkvError | None = None


@dataclass(slots=True)
class Crew:
    """All workers of a batch.

    Attributes:
        ray: The module, connected.
        job: What each loads.
        expected: Parts of the identity, by their names, that the model must have; what is missing
            is settled by the first workers.
        say: Told what a user should know; parts of it may come from other machines.
        identity: The one that all have, once it is settled.
        notice: What the workers' engine has to say, as `Model.notice`.
    """

    ray: ModuleType
    job: Job
    expected: Mapping[str, str]
    say: Callable[[str], None]
    identity: Mapping[str, str] | None = None
    notice: str | None = None
    _cards: int | None = None
    _members: dict[tuple[str, int], Member] = field(default_factory=dict)
    _records: dict[tuple[str, int], _Record] = field(default_factory=dict)
    _landed: SimpleQueue[Landed] = field(default_factory=SimpleQueue)
    _next_look: float = 0.0

    def start(self, stopped: Callable[[], bool]) -> None:
        """Load the model everywhere, and settle on what most workers have loaded.

        Args:
            stopped: Whether to give up waiting.

        Raises:
            UsageError: The cluster has no such processor or card.
            RwkvError: No worker can load the model: why the first one cannot.
        """
        self._cards = cards_wanted(self.job)
        if not places(self.ray.nodes(), self._cards):
            what = "GPU" if self._cards else "processor"
            hint = "--device cpu" if self._cards else "ray start --num-cpus N"
            raise UsageError(f"no machine of the Ray cluster has a {what} to offer", hint=hint)
        settle, slow = float("inf"), time.monotonic() + _SETTLE
        while not stopped() and not self._all_loaded() and time.monotonic() < settle:
            self.look()
            for landed in self.landed(0.5):
                self.loaded(landed)
            if self._loaded():
                settle = min(settle, time.monotonic() + _SETTLE)
            elif time.monotonic() > slow:
                self.say("waiting for Ray to grant processors or cards, and for models to load")
                slow = float("inf")
        self._agree()

    def look(self) -> None:
        """Make workers where there is a place and none is, if it is time to look.

        Raises:
            RwkvError: There is neither a worker nor a place for one.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        there = {(one.node, one.number): one for one in places(self.ray.nodes(), self._cards)}
        for key, place in there.items():
            record = self._records.setdefault(key, _Record())
            if key in self._members or record.closed:
                continue
            if now >= record.next_try:
                self._members[key] = self._made(place)
            else:
                self._next_look = min(self._next_look, record.next_try)
        reasons = [record.closed for key in there if (record := self._records[key]).closed]
        if not self._members and len(reasons) == len(there):
            raise reasons[0] if reasons else StorageError("the Ray cluster has lost all machines")

    def ready(self) -> list[Member]:
        """Give the workers that take rows."""
        return [one for one in self._loaded() if one.identity == self.identity]

    def send(self, member: Member, data: bytes, errand: Any) -> None:
        """Send a row to a worker.

        Args:
            member: Who shall answer it.
            data: The request as JSON.
            errand: What `landed` names it by.
        """
        member.rows += 1
        self._call(member, member.actor.answer.remote(data), errand)

    def landed(self, seconds: float) -> Iterable[Landed]:
        """Give the calls that have ended, waiting at most so long for the first."""
        try:
            yield self._landed.get(timeout=seconds)
            while True:
                yield self._landed.get_nowait()
        except Empty:
            return

    def loaded(self, landed: Landed) -> None:
        """Take in a worker that has loaded its model, or leave it out if that is another one."""
        member, error = landed.member, landed.future.exception()
        if error:
            self.lost(member, error)
            return
        told = json.loads(landed.future.result())
        place = member.place
        odd = trouble(told, place) or difference(told["identity"], self.expected, place)
        if odd:
            self._close(member, odd)
            return
        member.identity, member.slots = told["identity"], told["slots"]
        self.notice = self.notice or told["notice"]

    def answered(self, member: Member) -> None:
        """Note that a worker has answered a row."""
        self._records[_key(member)].deaths = 0

    def lost(self, member: Member, error: BaseException) -> None:
        """Replace a worker that has died, or whose engine has failed; once, however many of its
        calls tell of it.
        """
        key = _key(member)
        if self._members.get(key) is not member:
            return
        del self._members[key]
        self.ray.kill(member.actor)
        record = self._records[key]
        record.deaths += not member.alone  # for else it was the row
        record.next_try = time.monotonic() + max(0, record.deaths - 1)
        self._next_look = 0.0
        reason = _reason(error)
        redone = f"{member.rows} rows are" if member.rows > 1 else "1 row is"
        rows = f"; {redone} redone" if member.rows else ""
        self.say(f"the worker on {member.place.name} was lost ({reason}){rows}")
        if record.deaths >= _PATIENCE:
            what = f"no worker stays alive on {member.place.name}: {reason}"
            record.closed = StorageError(what, hint=f"ray logs --node-id {member.place.node}")
            self.say(what)

    def dismiss(self) -> None:
        """End all workers."""
        for member in self._members.values():
            self.ray.kill(member.actor)
        self._members.clear()

    def _made(self, place: Place) -> Member:
        """Make a worker and have it load the model."""
        there = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        actor = (
            self.ray.remote(Worker)
            .options(
                num_cpus=place.processors,
                num_gpus=place.cards,
                max_restarts=0,
                max_concurrency=_MANY_CALLS,
                scheduling_strategy=there(place.node, soft=False),
            )
            .remote()
        )
        member, job = Member(place, actor), self.job
        if not place.cards and not job.strategy:
            job = replace(job, device="cpu")
        data = json.dumps(asdict(job)).encode()
        self._call(member, actor.load.remote(data, place.processors), None)
        return member

    def _call(self, member: Member, call: Any, errand: Any) -> None:
        call.future().add_done_callback(
            lambda future: self._landed.put(Landed(member, errand, future))
        )

    def _loaded(self) -> list[Member]:
        return [member for member in self._members.values() if member.identity]

    def _all_loaded(self) -> bool:
        return bool(self._members) and len(self._loaded()) == len(self._members)

    def _agree(self) -> None:
        """Settle on what most workers have loaded; leave out the others."""
        chosen = commonest(one.identity for one in self._loaded() if one.identity)
        if chosen is None:
            return
        self.expected = self.identity = chosen
        for member in self._loaded():
            odd = difference(member.identity or {}, chosen, member.place)
            if odd:
                self._close(member, odd)

    def _close(self, member: Member, reason: RwkvError) -> None:
        """End a worker, and make no other at its place."""
        self._members.pop(_key(member), None)
        self._records[_key(member)].closed = reason
        self.ray.kill(member.actor)
        self._next_look = 0.0
        self.say(f"{reason.message}; it is left out")


def _reason(error: BaseException) -> str:
    """Give the sentence that matters of what Ray says: the first one of its last line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().partition(". ")[0][:200]


def _key(member: Member) -> tuple[str, int]:
    return member.place.node, member.place.number
