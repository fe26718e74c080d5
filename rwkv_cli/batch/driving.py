"""One run of a batch: rows in, answers out, and everything between them that must not be lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Protocol

from rwkv_cli.batch.asking import Asking
from rwkv_cli.batch.output import Output
from rwkv_cli.batch.reading import RowSource
from rwkv_cli.batch.row import Answer, Request, Row, RowError
from rwkv_cli.batch.writing import Line
from rwkv_cli.text.fenced import first_block

Tick = Callable[[int, int], None]

_IN_FLIGHT = 64 << 20  # bytes of prompts in work at once; a longer one is alone
_POLL = 0.01  # seconds


class Runner(Protocol):
    """Who answers."""

    def run(self, items: Iterable[Request | Answer], tick: Tick) -> Iterator[Answer]:
        """Answer requests, in the order in which they end; answers among them pass by.

        Args:
            items: Read in another thread.
            tick: Called now and then with the tokens read and generated so far.
        """

    def interrupt(self) -> None:
        """Drop what is in flight and end; safe to call from a signal handler."""


class Target(Protocol):
    """Where lines go."""

    @property
    def room(self) -> bool:
        """Whether another row may be begun."""

    def expect(self, index: int) -> None:
        """A row is begun."""

    def add(self, index: int, line: bytes, *, failed: bool = False) -> None:
        """Take the line of a row."""

    def tick(self) -> None:
        """Do what is due."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which rows of an input are asked for.

    Attributes:
        skip: How many are passed over at the beginning.
        limit: How many are answered at most; None is all.
        done: Tells rows that need not be answered again.
    """

    skip: int = 0
    limit: int | None = None
    done: Callable[[int], bool] = lambda _: False

    @property
    def end(self) -> int | None:
        """The first row behind them."""
        return None if self.limit is None else self.skip + self.limit


class StreamMarks:
    """Places of a stream, noted by the thread that reads it, and told by the one that keeps its
    rows.

    Args:
        output: Where the rows go; of a file there is nothing to tell.
    """

    def __init__(self, output: Output) -> None:
        self._output, self._places = output, deque[tuple[int, str]]()

    def note(self, rows: int, digest: str) -> None:
        """So many rows were read."""
        self._places.append((rows, digest))

    def tell(self) -> None:
        """Pass on what was noted.

        Raises:
            UsageError: It is another stream than the one that the output was made from.
        """
        while self._places:
            rows, digest = self._places.popleft()
            self._output.reached(rows, partial(str, digest))


class Run:
    """Answers rows.

    Args:
        source: The rows.
        asking: What they ask.
        line: Writes a row and its answer down.
        target: Where that goes.
        part: Which rows.
        extract: Whether only the code in answers is wanted.
        marks: Compares a stream with the one that the output was made from.

    Attributes:
        asking: As given.
        answered: How many rows have got an answer or an error.
        failed: How many have got an error.
        first_failure: The first of these to end, and its error.
    """

    def __init__(
        self,
        source: RowSource,
        asking: Asking,
        line: Line,
        target: Target,
        part: Part,
        *,
        extract: bool = False,
        marks: StreamMarks | None = None,
    ) -> None:
        self._source, self.asking, self._line, self._target = source, asking, line, target
        self._part, self._extract, self._marks = part, extract, marks
        self.answered = self.failed = 0
        self.first_failure: tuple[int, RowError] | None = None
        self._runner: Runner | None = None
        self._rows: dict[int, tuple[Row, int]] = {}  # in flight, with the bytes of their prompts
        self._bytes = 0
        self._counting = Lock()
        self._interrupted = False

    def interrupt(self) -> None:
        """Begin no more rows, and drop those in flight; safe to call from a signal handler."""
        self._interrupted = True
        self._source.interrupt()
        if self._runner is not None:
            self._runner.interrupt()

    def go(self, runner: Runner, tick: Tick) -> None:
        """Answer the rows.

        Args:
            runner: Who answers.
            tick: Called now and then with the tokens read and generated so far.

        Raises:
            RwkvError: The input cannot be read, or the output not written.
        """
        self._runner = runner

        def step(read: int, generated: int) -> None:
            self._settle()
            tick(read, generated)

        if self._interrupted:
            return
        for answer in runner.run(self._items(), step):
            self._keep(answer)
        self._settle()
        if self._rows and not self._interrupted:
            raise AssertionError(f"{len(self._rows)} rows got no answer")

    def _settle(self) -> None:
        if self._marks:
            self._marks.tell()
        self._target.tick()

    def _keep(self, answer: Answer) -> None:
        row = self._let_go(answer.index)
        if self._extract:
            answer = _extracted(answer)
        failed = answer.error is not None
        self.answered += 1
        self.failed += failed
        if answer.error is not None and self.first_failure is None:
            self.first_failure = row.index, answer.error
        self._target.add(row.index, self._line(row, answer), failed=failed)

    def _items(self) -> Iterator[Request | Answer]:
        """Give what rows ask, and errors of those that ask nothing; runs in another thread."""
        for row in self._source.rows(self._wants):
            asked = self.asking(row)
            size = 0 if isinstance(asked, RowError) else len(asked.prompt)
            self._wait_for_room(size)
            if self._interrupted:
                return
            with self._counting:
                self._rows[row.index] = row, size
                self._bytes += size
            self._target.expect(row.index)
            if isinstance(asked, RowError):
                yield Answer(row.index, 0, error=asked)
            else:
                yield asked

    def _let_go(self, index: int) -> Row:
        with self._counting:
            row, size = self._rows.pop(index)
            self._bytes -= size
        return row

    def _wants(self, index: int) -> bool:
        end = self._part.end
        if end is not None and index >= end:
            self._source.interrupt()
            return False
        if self._marks:
            self._marks.note(index + 1, self._source.digest_so_far())
        return index >= self._part.skip and not self._part.done(index)

    def _wait_for_room(self, size: int) -> None:
        """Hold rows back while what is in flight, or waits for its turn, takes much memory."""
        while not self._interrupted:
            too_much = self._rows and self._bytes + size > _IN_FLIGHT
            if self._target.room and not too_much:
                return
            time.sleep(_POLL)


def _extracted(answer: Answer) -> Answer:
    """Leave nothing of answers but the code in them; without any they stay whole."""
    samples = []
    for sample in answer.samples:
        code = first_block(sample.text)
        samples.append(sample if code is None else replace(sample, text=code))
    return replace(answer, samples=tuple(samples))
