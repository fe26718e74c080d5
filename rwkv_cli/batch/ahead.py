"""Reading ahead: rows are read, rendered and encoded in a thread of their own while a model
computes, and a pipe that is silent holds up nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition, Thread
from typing import Generic, TypeVar

from rwkv_cli.batch.row import Answer, Request

Made = TypeVar("Made")

_BYTES = 32 << 20  # of prompts that wait; a longer one waits alone
_PATIENCE = 0.1  # seconds: signals and figures come round this often


class Ahead(Generic[Made]):
    """A source of jobs for a scheduler, or of whatever is made of requests.

    Args:
        items: Requests; an answer among them is of a row that has it already, and passes by.
        job: Makes a job of a request.
        count: How many wait at most.

    Attributes:
        ended: Whether there are no more.
        failure: Why the thread read no further, if not because of the end.
    """

    def __init__(
        self, items: Iterable[Request | Answer], job: Callable[[Request], Made], count: int
    ) -> None:
        self.ended = False
        self._items, self._job, self._count = items, job, max(1, count)
        self._changed = Condition()
        self._waiting: deque[tuple[Made | Answer, int]] = deque()
        self._passed: list[Answer] = []
        self._bytes = 0
        self.failure: BaseException | None = None
        self._closed = self._exhausted = False
        # Whoever waits for a byte of a pipe cannot be woken, so nobody waits for this thread.
        Thread(target=self._read, name="reading rows", daemon=True).start()

    def take(self, *, wait: bool) -> Made | None:
        """Give the next job."""
        with self._changed:
            if wait and not self._waiting and not self._exhausted:
                self._changed.wait(_PATIENCE)
            while self._waiting:
                item, size = self._waiting.popleft()
                self._bytes -= size
                self._changed.notify()
                if not isinstance(item, Answer):
                    return item
                self._passed.append(item)
            self.ended = self._exhausted
            return None

    def passed(self) -> list[Answer]:
        """Give the answers that passed by since the last call."""
        passed, self._passed = self._passed, []
        return passed

    def close(self) -> None:
        """Read no further."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for item in self._items:
                if isinstance(item, Answer):
                    self._put(item, 0)
                else:
                    self._put(self._job(item), len(item.prompt))
                if self._closed:
                    break
        except BaseException as failure:  # whoever takes the jobs answers for it
            self.failure = failure
        with self._changed:
            self._exhausted = True
            self._changed.notify_all()

    def _put(self, item: Made | Answer, size: int) -> None:
        with self._changed:
            while not self._closed and self._is_full(size):
                self._changed.wait()
            self._waiting.append((item, size))
            self._bytes += size
            self._changed.notify()

    def _is_full(self, size: int) -> bool:
        too_much = self._bytes + size > _BYTES
        return len(self._waiting) >= self._count or (too_much and bool(self._waiting))
