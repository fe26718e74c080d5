"""Brings what is missing of a file: several ranges at a time, over a network that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from rwkv_cli.errors import RefusedError, RwkvError, StorageError
from rwkv_cli.hub.hashing import Hasher
from rwkv_cli.hub.part import Part
from rwkv_cli.hub.patience import GIVE_UP, Backoff
from rwkv_cli.hub.stream import Stream
from rwkv_cli.hub.trouble import Trouble
from rwkv_cli.hub.watching import Watch
from rwkv_cli.hub.web import STALL, Reply

SMALLEST, LARGEST = 4 << 20, 64 << 20  # bytes of a range
SAVE_EVERY = 2.0  # seconds between two flushes to the disk
_TICK = 0.1
_SLOWEST = 16 << 10  # bytes within `STALL` seconds; fewer, and another connection is tried
_FIRST_READ, _LONGEST_READ = 16 << 10, 512 << 10
_PATIENCE_AT_END = 5.0  # seconds for threads to notice that it is over
_MOST_UNSIZED = 200 << 30  # bytes of a body whose length nobody says


@dataclass
class Piece:
    """A range on its way.

    Attributes:
        at: Where the next byte belongs.
        end: Where the range ends.
    """

    at: int
    end: int


class Transfer:
    """One file's way here.

    Args:
        stream: Where the bytes come from.
        part: Where they go.
        hasher: Follows them.
        watch: Is told how far it is.
        connections: Ranges at a time; 0 for a server that gives no ranges.
        give_up: Seconds without a byte after which it has failed; 0 is never.
    """

    def __init__(
        self,
        stream: Stream,
        part: Part,
        hasher: Hasher,
        watch: Watch,
        *,
        connections: int = 4,
        give_up: float = GIVE_UP,
    ) -> None:
        self._stream, self._part, self._hasher, self._watch = stream, part, hasher, watch
        self._connections, self._give_up = connections, give_up
        self._gaps = part.gaps()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._replies: set[Reply] = set()
        self._failure: BaseException | None = None
        self._trouble: Trouble | None = None
        self._last_byte, self._saving = time.monotonic(), threading.Thread()

    def run(self) -> None:
        """Bring it; what came stays when it fails or is interrupted.

        Raises:
            RwkvError: It failed for good.
        """
        work = self._work if self._connections else self._work_whole
        workers = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for _ in range(max(1, self._connections))
        ]
        try:
            for worker in workers:
                worker.start()
            self._oversee(workers)
        finally:
            self._end(workers)
        if self._failure is not None:
            raise self._failure

    def _oversee(self, workers: list[threading.Thread]) -> None:
        """Tell how far it is, save what came, and notice when nothing comes."""
        saved = time.monotonic()
        while any(worker.is_alive() for worker in workers) and self._failure is None:
            workers[0].join(_TICK) if workers[0].is_alive() else time.sleep(_TICK)
            now, silent = time.monotonic(), time.monotonic() - self._last_byte
            trouble = self._trouble if silent > 1 else None
            self._watch.at(self._part.done, trouble.message if trouble else "")
            if self._connections:  # else it may begin anew
                self._hasher.advance(self._part.front)
            if now - saved > SAVE_EVERY and self._connections and not self._saving.is_alive():
                saved = now
                self._saving = threading.Thread(target=self._guarded, args=(self._part.save,))
                self._saving.start()
            if self._give_up and silent > self._give_up:
                why = f": {self._trouble.message}" if self._trouble else ""
                self._fail(
                    StorageError(
                        f"no byte came for {silent / 60:.0f} minutes{why}",
                        hint="run the same command again: what has come is kept",
                    )
                )

    def _end(self, workers: list[threading.Thread]) -> None:
        """Let everyone go, and make durable what came."""
        self._over.set()
        with self._lock:
            replies = list(self._replies)
        for reply in replies:
            reply.wake()
        limit = time.monotonic() + _PATIENCE_AT_END
        for worker in workers:
            if worker.ident is not None:
                worker.join(max(0.0, limit - time.monotonic()))
        if any(worker.is_alive() for worker in workers):
            self._part.abandon()
        if self._saving.ident is not None:
            self._saving.join()
        if self._connections and self._part.gaps():
            with suppress(RwkvError):  # it only saves work
                self._part.save()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
        self._over.set()

    # Ranges

    def _work(self) -> None:
        backoff = Backoff()
        while not self._over.is_set() and (piece := self._take()) is not None:
            began = piece.at
            try:
                self._bring(piece)
                backoff.succeeded()
            except Trouble as error:
                if self._over.is_set():
                    return
                self._give_back(piece)
                if piece.at > began:
                    backoff.succeeded()
                self._wait(error, backoff)

    def _wait(self, error: Trouble, backoff: Backoff) -> None:
        self._trouble = error
        self._stream.forget()
        self._over.wait(backoff.failed(error))

    def _take(self) -> Piece | None:
        """Take the next range: large ones at first, small ones towards the end, so that the
        connections end together.
        """
        with self._lock:
            if not self._gaps:
                return None
            left = sum(end - begin for begin, end in self._gaps)
            size = min(LARGEST, max(SMALLEST, left // (2 * self._connections)))
            begin, end = self._gaps[0]
            if end - begin > size + SMALLEST:
                self._gaps[0] = (begin + size, end)
                return Piece(begin, begin + size)
            del self._gaps[0]
            return Piece(begin, end)

    def _give_back(self, piece: Piece) -> None:
        with self._lock:
            self._gaps.insert(0, (piece.at, piece.end))

    def _bring(self, piece: Piece) -> None:
        reply = self._stream.open(piece.at, piece.end)
        with self._held(reply) as held:
            self._read(held, piece)

    def _read(self, reply: Reply, piece: Piece) -> None:
        """Read a range to its end."""
        amount, since, before = _FIRST_READ, time.monotonic(), piece.at
        while piece.at < piece.end and not self._over.is_set():
            asked = time.monotonic()
            block = reply.read(min(amount, piece.end - piece.at))
            if not block:
                raise Trouble("the connection ended early")
            self._part.write(piece.at, block)
            piece.at += len(block)
            now = self._last_byte = time.monotonic()
            amount = _adapted(amount, now - asked)
            if now - since > STALL:
                if piece.at - before < _SLOWEST:
                    raise Trouble("the connection is all but silent")
                since, before = now, piece.at

    def _held(self, reply: Reply) -> _Held:
        return _Held(self._replies, self._lock, reply)

    # A server without ranges

    def _work_whole(self) -> None:
        backoff = Backoff()
        while not self._over.is_set():
            try:
                self._bring_whole()
                return
            except Trouble as error:
                if self._over.is_set():
                    return
                if self._part.done:
                    backoff.succeeded()
                    self._watch.say(f"{error.message}; this server cannot continue: from the start")
                self._part.reset()
                self._wait(error, backoff)

    def _bring_whole(self) -> None:
        size = self._part.size
        reply = self._stream.open_whole()
        piece = Piece(0, _MOST_UNSIZED if size is None else size)
        with self._held(reply) as held:
            if size is not None:
                self._read(held, piece)
                if not self._over.is_set() and held.read(1):
                    raise RefusedError(f"the server sends more than the {size:,} bytes it promised")
                return
            self._read_on(held, piece)

    def _read_on(self, reply: Reply, piece: Piece) -> None:
        """Read a body whose length nobody said."""
        amount = _FIRST_READ
        while not self._over.is_set():
            asked = time.monotonic()
            block = reply.read(amount)
            if not block:
                return
            if piece.at + len(block) > piece.end:
                raise RefusedError(f"the server sends more than {piece.end:,} bytes, without end")
            self._part.write(piece.at, block)
            piece.at += len(block)
            self._last_byte = time.monotonic()
            amount = _adapted(amount, self._last_byte - asked)


class _Held:
    """A reply that can be woken while it is read, and is closed afterwards."""

    def __init__(self, held: set[Reply], lock: threading.Lock, reply: Reply) -> None:
        self._set, self._lock, self._reply = held, lock, reply

    def __enter__(self) -> Reply:
        with self._lock:
            self._set.add(self._reply)
        return self._reply

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._lock:
            self._set.discard(self._reply)
        self._reply.close(reusable=kind is None)


def _adapted(amount: int, seconds: float) -> int:
    """Read more at a time on a fast line, less on a slow one, where every byte should show."""
    if seconds < 0.05:
        return min(_LONGEST_READ, 2 * amount)
    return max(_FIRST_READ, amount // 2) if seconds > 0.5 else amount
