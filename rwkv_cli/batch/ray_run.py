"""A batch on a Ray cluster: rows go out to workers, answers come back as they are ready, and what a
dead worker had is redone.

Why actors, and neither Ray Data nor ActorPool: an engine decodes many rows at once and must get a
new one the moment one ends, so a row is a call of its own. Ray Data hands out blocks, each of which
ends with its longest row, and reads sources from its own tasks, not a stream that this process
reads. ActorPool gives one call at a time to an actor and keeps dead ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from rwkv_cli.batch.ahead import Ahead
from rwkv_cli.batch.ray_cluster import join
from rwkv_cli.batch.ray_crew import Crew, Landed, Member
from rwkv_cli.batch.ray_worker import Job
from rwkv_cli.batch.row import Answer, Request, RowError
from rwkv_cli.batch.running import told
from rwkv_cli.batch.wire import packed_request, unpacked_answer
from rwkv_cli.errors import RwkvError

Tick = Callable[[int, int], None]

_TOGETHER = (
    3  # workers that a row may lose among others: any of those may have been what killed them
)
_ALONE = 2  # that it may lose with nothing beside it: one may have died for another reason
_AHEAD = 2  # rows sent to a worker, as a multiple of its slots, so that none waits for a row
_BYTES = 256 << 20  # of requests in flight
_TICK = 0.1  # seconds, after which new rows and an interruption are noticed


@dataclass(eq=False, slots=True)
class _Flight:
    """A row on its way.

    Attributes:
        index: The row.
        seed: Of its request.
        data: The request as JSON.
        deaths: Of workers that had it.
    """

    index: int
    seed: int
    data: bytes
    deaths: int = 0


@dataclass(slots=True)
class _Rows:
    """The rows of a run that are not answered yet.

    Attributes:
        source: Those that nobody has seen.
        again: Those that go out again.
        alone: Those that go out once more, with nothing beside them: what they were lost with may
            have been what killed their workers.
        out: How many are with workers.
        size: Bytes of their requests.
        read: Tokens of the prompts that were answered.
        generated: Tokens of their answers.
    """

    source: Ahead[_Flight]
    again: deque[_Flight] = field(default_factory=deque)
    alone: deque[_Flight] = field(default_factory=deque)
    out: int = 0
    size: int = 0
    read: int = 0
    generated: int = 0

    def take(self) -> _Flight | None:
        """Give the next row to send; None when there is none now, or when enough are out."""
        if self.again:
            return self.again.popleft()
        if self.out and self.size > _BYTES:
            return None
        return self.source.take(wait=not self.out)

    @property
    def done(self) -> bool:
        """Whether all have been answered."""
        return self.source.ended and not (self.out or self.again or self.alone)

    def count(self, answer: Answer) -> None:
        """Count the tokens of an answer."""
        self.read += answer.prompt_tokens
        self.generated += sum(sample.tokens for sample in answer.samples)


def _flight(request: Request) -> _Flight:
    return _Flight(request.index, request.seed, packed_request(request))


class RayRunner:
    """Runs requests on a Ray cluster that is there already.

    Args:
        job: What each worker loads.
        address: "HOST:PORT" of the cluster, or "auto".
        expected: Parts of the model's identity ("arch", "weights", "tokenizer", "numerics") that
            workers must have, or be left out; what is not named is settled by most of them.
        say: Told what a user should know, in sentences of which parts may come from other machines.
        find_state: Gives the file of a saved state by its name or path, as all machines call it.
    """

    def __init__(
        self,
        job: Job,
        *,
        address: str = "auto",
        expected: Mapping[str, str] | None = None,
        say: Callable[[str], None],
        find_state: Callable[[str], str] = str,
    ) -> None:
        self._job, self._address, self._say = job, address, say
        self._find_state = lru_cache(maxsize=64)(find_state)
        self._expected = dict(expected or {})
        self._stopped = False
        self._joined: Crew | None = None

    def start(self) -> None:
        """Join the cluster and load the model on its machines; `interrupt` ends the wait.

        Raises:
            UsageError: Ray is not installed, the cluster does without tokens, or it has nothing to
                offer that the job needs.
            NotFoundError: There is no such cluster.
            RwkvError: No worker can load the model.
        """
        self._joined = Crew(join(self._address), self._job, self._expected, self._say)
        self._joined.start(lambda: self._stopped)

    @property
    def _crew(self) -> Crew:
        assert self._joined is not None, "start comes first"
        return self._joined

    @property
    def identity(self) -> Mapping[str, str]:
        """What all workers have loaded: "arch", "weights", "tokenizer" and "numerics"; empty when
        `interrupt` came before any had.
        """
        return self._crew.identity or {}

    @property
    def notice(self) -> str | None:
        """What the user should know about how the model runs."""
        return self._crew.notice

    @property
    def workers(self) -> int:
        """How many workers take rows."""
        return len(self._crew.ready())

    @property
    def slots(self) -> int:
        """How many rows they run at once."""
        return sum(member.slots for member in self._crew.ready())

    def run(self, items: Iterable[Request | Answer], tick: Tick | None = None) -> Iterator[Answer]:
        """Answer requests, each exactly once, in the order in which they are ready.

        After `interrupt` the iterator ends; what was in flight is not answered.

        Args:
            items: Read in another thread, no further ahead than the workers have room. An answer
                among them passes by.
            tick: Called now and then with the tokens read and generated for what was answered.

        Raises:
            RwkvError: All workers are lost for good, or the input cannot be read.
        """
        rows = _Rows(Ahead(map(self._located, items), _flight, count=self.slots))
        try:
            while not (self._stopped or rows.done):
                self._crew.look()
                self._hand_out(rows)
                yield from rows.source.passed()
                yield from self._answers(rows)
                if tick:
                    tick(rows.read, rows.generated)
            yield from rows.source.passed()
            if rows.source.failure is not None and not self._stopped:
                raise rows.source.failure
        finally:
            rows.source.close()

    def _located(self, item: Request | Answer) -> Request | Answer:
        """Call the saved state of a row as all machines do."""
        if isinstance(item, Answer) or item.state is None:
            return item
        try:
            return replace(item, state=self._find_state(item.state))
        except RwkvError as error:
            return Answer(item.index, item.seed, error=told(error))

    def _answers(self, rows: _Rows) -> Iterator[Answer]:
        """Take in the calls that have ended, waiting a little for the first when there are any."""
        for landed in self._crew.landed(_TICK if rows.out or not self.workers else 0.0):
            if landed.errand is None:
                self._crew.loaded(landed)
                continue
            answer = self._taken_in(landed, rows)
            if answer and not self._stopped:
                rows.count(answer)
                yield answer

    def interrupt(self) -> None:
        """End the run soon; safe to call from a signal handler."""
        self._stopped = True

    def close(self) -> None:
        """End the workers and leave the cluster, which goes on."""
        if self._joined:
            self._joined.dismiss()
            self._joined.ray.shutdown()

    def _hand_out(self, rows: _Rows) -> None:
        """Send rows to whoever has room, least busy first."""
        ready = [member for member in self._crew.ready() if not member.alone]
        if rows.alone and ready:
            # One worker gets nothing new until it is empty, and then the row that goes alone.
            quiet = min(ready, key=lambda member: member.rows)
            ready.remove(quiet)
            if not quiet.rows:
                quiet.alone = True
                self._send(quiet, rows.alone.popleft(), rows)
        while not self._stopped:
            free = [one for one in ready if one.rows < _AHEAD * one.slots]
            flight = rows.take() if free else None
            if flight is None:
                return
            self._send(min(free, key=lambda one: one.rows / one.slots), flight, rows)

    def _send(self, member: Member, flight: _Flight, rows: _Rows) -> None:
        rows.out += 1
        rows.size += len(flight.data)
        self._crew.send(member, flight.data, flight)

    def _taken_in(self, landed: Landed, rows: _Rows) -> Answer | None:
        """Take in what came of a row: its answer, or None if it goes out again."""
        member, flight, error = landed.member, landed.errand, landed.future.exception()
        rows.out -= 1
        rows.size -= len(flight.data)
        if error is None:
            member.rows, member.alone = member.rows - 1, False
            self._crew.answered(member)
            return unpacked_answer(landed.future.result())
        self._crew.lost(member, error)
        flight.deaths += 1
        if flight.deaths < _TOGETHER:
            rows.again.append(flight)
        elif flight.deaths < _TOGETHER + _ALONE:
            rows.alone.append(flight)
        else:
            what = f"each of the {flight.deaths} workers that had this row was lost"
            return Answer(flight.index, flight.seed, error=RowError("worker_lost", what))
        return None
