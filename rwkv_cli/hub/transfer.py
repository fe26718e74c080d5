"""Brings what is missing of a file: several ranges at a time, over a network that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from rwkv_cli.errors import RefusedError, RwkvError, StorageError
from rwkv_cli.hub.hashing import Hasher
from rwkv_cli.hub.part import Part, room_for
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
_SOON, _LATE = 0.05, 0.5  # seconds that a block takes on a fast line, and on a slow one
_SILENT = "the connection is all but silent"
_PATIENCE_AT_END = 5.0  # seconds for threads to notice that it is over
_ROOM = 64 << 20  # bytes for which there must be room, and how often that is looked at
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
        self._held: set[_Held] = set()
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
        while self._failure is None:
            working = next((worker for worker in workers if worker.is_alive()), None)
            if working is None:
                break
            working.join(_TICK)
            now, silent = time.monotonic(), time.monotonic() - self._last_byte
            trouble = self._trouble if silent > 1 else None
            self._watch.at(self._part.done, trouble.message if trouble else "")
            if self._connections:  # else it may begin anew
                self._hasher.advance(self._part.front)
            self._wake(silent=STALL)
            if now - saved > SAVE_EVERY and self._connections and not self._saving.is_alive():
                saved = now
                self._saving = threading.Thread(target=self._guarded, args=(self._part.save,))
                self._saving.start()
            if self._give_up and silent > self._give_up:
                self._fail(_given_up(silent, self._trouble))
        self._watch.at(self._part.done)

    def _end(self, workers: list[threading.Thread]) -> None:
        """Let everyone go, and make durable what came."""
        self._over.set()
        self._wake(silent=0.0)
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

    def _wake(self, silent: float) -> None:
        """Take back what has waited for its next bytes for so many seconds."""
        now = time.monotonic()
        with self._lock:
            waiting = [held for held in self._held if now - held.asked >= silent]
        for held in waiting:
            held.woken = True
            held.reply.wake()

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
        with self._holding(self._stream.open(piece.at, piece.end)) as held:
            self._read(held, piece)

    def _read(self, held: _Held, piece: Piece) -> None:
        """Read a range to its end."""
        since, before = time.monotonic(), piece.at
        while piece.at < piece.end and not self._over.is_set():
            block = held.read(piece.end - piece.at)
            if self._over.is_set():
                return
            if not block:
                raise Trouble("the connection ended early")
            self._part.write(piece.at, block)
            piece.at += len(block)
            now = self._last_byte = time.monotonic()
            if now - since > STALL:
                if piece.at - before < _SLOWEST:
                    raise Trouble(_SILENT)
                since, before = now, piece.at

    def _holding(self, reply: Reply) -> _Held:
        return _Held(self._held, self._lock, reply)

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
        piece = Piece(0, _MOST_UNSIZED if size is None else size)
        with self._holding(self._stream.open_whole()) as held:
            if size is not None:
                self._read(held, piece)
                if not self._over.is_set() and held.read(1):
                    raise RefusedError(f"the server sends more than the {size:,} bytes it promised")
                return
            self._read_on(held, piece)

    def _read_on(self, held: _Held, piece: Piece) -> None:
        """Read a body whose length nobody said."""
        checked = piece.at - _ROOM
        while not self._over.is_set():
            block = held.read(_LONGEST_READ)
            if not block or self._over.is_set():
                return
            if piece.at - checked >= _ROOM:  # nobody reserved it, and others need the disk too
                room_for(self._part.path.parent, _ROOM)
                checked = piece.at
            if piece.at + len(block) > piece.end:
                raise RefusedError(f"the server sends more than {piece.end:,} bytes, without end")
            self._part.write(piece.at, block)
            piece.at += len(block)
            self._last_byte = time.monotonic()


def _given_up(silent: float, trouble: Trouble | None) -> StorageError:
    """Say that nothing came, and why."""
    span = f"{silent / 60:.0f} minutes" if silent >= 120 else f"{silent:.0f} seconds"
    why = f": {trouble.message}" if trouble else ""
    hint = "run the same command again: what has come is kept"
    return StorageError(f"no byte came for {span}{why}", hint=hint)


class _Held:
    """A reply that is being read, and can be taken back meanwhile.

    Attributes:
        asked: When the thread that reads it began to wait.
        woken: Whether it was taken back.
    """

    def __init__(self, all_held: set[_Held], lock: threading.Lock, reply: Reply) -> None:
        self._all, self._lock, self.reply = all_held, lock, reply
        self._amount = _FIRST_READ
        self.asked, self.woken = time.monotonic(), False

    def read(self, limit: int) -> bytes:
        """Read a block: long ones on a fast line; on a slow one what has come, so that every byte
        shows.

        Raises:
            Trouble: The connection broke, or was taken back. Then what was read is not to be
                believed: Python's TLS gives what is still encrypted once a connection is shut down.
        """
        self.asked = time.monotonic()
        amount = min(self._amount, limit)
        slow = self._amount <= _FIRST_READ
        block = self.reply.read_some(amount) if slow else self.reply.read(amount)
        if self.woken:
            raise Trouble(_SILENT)
        seconds = time.monotonic() - self.asked
        if seconds < _SOON:
            self._amount = min(_LONGEST_READ, 2 * self._amount)
        elif seconds > _LATE:
            self._amount = max(_FIRST_READ, self._amount // 2)
        return block

    def __enter__(self) -> _Held:
        with self._lock:
            self._all.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._all.discard(self)
        self.reply.close()
