"""The output of a batch on disk: killed at any moment, it is gone on with, and no row is lost or
there twice.

The order of durable steps makes it so. The manifest is there before the first row, so that rows
without one are somebody else's. A row is one line at the end of the file, and only whole lines
count. What takes rows away (a restart, rows that failed and are tried again, what a crash tore) is
durable before the next row comes. The file in order takes the place of the other in one step, and
only then does the manifest say that all is done. One process at a time does any of this.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from rwkv_cli.batch.claim import claimed, real
from rwkv_cli.batch.manifest import Manifest, compare, load, manifest_path, refuse_changed, save
from rwkv_cli.batch.marks import Marks
from rwkv_cli.batch.rowfile import RowFile
from rwkv_cli.batch.stream import Stream
from rwkv_cli.errors import RefusedError, StorageError, UsageError

SEEDS = 1 << 53  # every reader of JSON keeps a whole number below that

_PERIOD = 1.0  # seconds of rows that a power failure may cost
_MANY = 4096  # rows that wait in memory

Note = Callable[[str], None]


class Output:
    """Where the rows of a run go; open for one process, until it is closed.

    Args:
        path: The file.
        wanted: What is asked for now.
        errors: Where rows that failed go; None for the same file.
        restart: Throw away what an earlier run made.
        retry_errors: Forget the rows that failed, so that they run again.
        note: Told what a user should know, such as that a crash left half a line.

    Attributes:
        manifest: What the run is made with, the base seed among it.
        done: Rows that are there, those that failed among them.
        failed: Rows that failed.
        complete: Whether an earlier run has done everything, and put it in order.

    Raises:
        NotFoundError: There is no such folder.
        UsageError: The file was made with something else, or it is no regular file.
        MismatchError: A newer version of this program made it.
        RefusedError: It is not a file of ours, or it is damaged.
        StorageError: Another process writes it, or the disk refused.
    """

    def __init__(
        self,
        path: Path,
        wanted: Manifest,
        *,
        errors: Path | None = None,
        restart: bool = False,
        retry_errors: bool = False,
        note: Note | None = None,
    ) -> None:
        self.done, self.failed = Marks(), Marks()
        self.complete = False
        self._path = real(path)
        self._beside = manifest_path(self._path)
        self._stream: Stream | None = None
        self._waiting: deque[tuple[int, RowFile, bytes]] = deque()
        self._notes: list[str] = []
        with contextlib.ExitStack() as stack:
            self._rows = stack.enter_context(claimed(self._path, wanted.layout, self._notes.append))
            self._errors = self._rows
            if errors is not None:
                wanted = self._apart(real(errors), wanted, stack)
            self._files = list(dict.fromkeys((self._rows, self._errors)))
            if restart:
                self._restart(wanted)
            self.manifest = self._agree(wanted)
            self._read()
            if retry_errors and self.failed:
                self._forget_failed()
            self._closing = stack.pop_all()
        if note:
            for text in self._notes:
                note(text)
        self._synced = time.monotonic()

    # Opening

    def _apart(self, path: Path, wanted: Manifest, stack: contextlib.ExitStack) -> Manifest:
        """Open the file of rows that failed; what is wanted then names it."""
        if path in (self._path, self._beside):
            raise UsageError(f"rows that failed cannot go to {path}: it is the output")
        self._errors = stack.enter_context(claimed(path, wanted.layout, self._notes.append))
        return replace(wanted, errors=os.path.relpath(path, self._path.parent))

    def _restart(self, wanted: Manifest) -> None:
        """Throw the rows of an earlier run away, durably, before anything else is written."""
        self._refuse_strangers()
        if self._errors is not self._rows and self._errors.size:
            old = load(self._beside)
            if old is None or old.errors != wanted.errors:
                raise RefusedError(
                    f"{self._errors.path} holds rows of another run",
                    hint="choose another --errors, or take that file away",
                )
        for file in self._files:
            file.empty()
        self._beside.unlink(missing_ok=True)

    def _refuse_strangers(self) -> None:
        """Refuse files that have rows, but no manifest."""
        full = [file.path for file in self._files if file.size]
        if full and not self._beside.exists():
            raise RefusedError(
                f"{full[0]} is there already, without {self._beside.name}, which would say how it"
                " was made",
                hint="choose another -o, or take that file away",
            )

    def _agree(self, wanted: Manifest) -> Manifest:
        """Settle what the run is made with, durably."""
        self._refuse_strangers()
        old = load(self._beside)
        if old is not None and any(file.size for file in self._files):
            refuse_changed(self._path, old, wanted)
        if old is None or compare(old, wanted):
            seed = secrets.randbelow(SEEDS) if wanted.seed is None else wanted.seed
            old = replace(wanted, seed=seed, complete=None)
            if old.input.stream:
                nothing = hashlib.sha256().hexdigest()
                old = replace(old, input=replace(old.input, rows=0, sha256=nothing))
            save(self._beside, old)
        if old.input.stream:
            self._stream = Stream(self._path, old.input.rows, old.input.sha256)
        return old

    def _read(self) -> None:
        """Read which rows are done; what a crash left behind them is cut off."""
        limit = self.manifest.input.rows
        for file in self._files:
            for index, failed in file.read(limit):
                if not self.done.add(index):
                    raise RefusedError(
                        f"{file.path}: row {index} is there twice",
                        hint="take one of the two lines out; two runs wrote it where no locks work",
                    )
                if failed:
                    self.failed.add(index)
            if file.cut:
                self._notes.append(
                    f"cut {file.cut:,} bytes of unfinished rows off {file.path.name}"
                )
        self.complete = self.manifest.complete == len(self.done)
        if not self.complete and self.manifest.complete is not None:
            self._store(complete=None)  # somebody took rows away

    def _forget_failed(self) -> None:
        if self.complete:
            self._store(complete=None)
            self.complete = False
        if self._errors is self._rows:
            self._rows.drop_failed()
        else:
            self._errors.empty()
        self.done.discard_all(self.failed)
        self.failed = Marks()

    # Running

    @property
    def room(self) -> bool:
        """Whether more rows may be begun: always, since a file takes them in any order."""
        return True

    def expect(self, index: int) -> None:
        """A row is begun; nothing follows from that here."""

    def reached(self, rows: int, digest: Callable[[], str]) -> None:
        """So many rows of a stream were read; to be told of each row, in their order, by the thread
        that adds rows. A row that comes before that is told waits for it.

        Args:
            rows: How many.
            digest: Gives the SHA-256 of the stream up to there, until the next row is read.

        Raises:
            UsageError: It is another stream than the one the output was made from.
        """
        if self._stream is not None:
            self._stream.reached(rows, digest)

    def add(self, index: int, line: bytes, *, failed: bool = False) -> None:
        """Keep what came of a row, which must not be done yet.

        Raises:
            StorageError: The disk refused; nothing of the line stays.
        """
        if index in self.done:
            raise AssertionError(f"row {index} was done twice")
        file = self._errors if failed else self._rows
        if self._stream is not None and not self._stream.covers(index):
            self._waiting.append((index, file, line))
        else:
            file.append(line)
        self.done.add(index)
        if failed:
            self.failed.add(index)
        self.tick()

    def tick(self) -> None:
        """Do what is due: once a second, rows become durable. Call it now and then.

        Raises:
            StorageError: The disk refused.
        """
        if len(self._waiting) >= _MANY or time.monotonic() - self._synced >= _PERIOD:
            self.sync()

    def sync(self) -> None:
        """Make durable all that was added, but for rows of a stream that is not yet known to be the
        one that the output was made from.

        Raises:
            StorageError: The disk refused.
        """
        if self._stream is not None and (further := self._stream.further()):
            rows, sha256 = further
            self._store(input=replace(self.manifest.input, rows=rows, sha256=sha256))
            self._stream.saved(rows)
        for _ in range(len(self._waiting)):
            index, file, line = self._waiting.popleft()  # an interrupt costs a row, repeats none
            if self._stream is None or self._stream.covers(index):
                file.append(line)
            else:
                self._waiting.append((index, file, line))
        for file in self._files:
            file.sync()
        self._synced = time.monotonic()

    # Ending

    def finish(self, *, sort: bool = True) -> None:
        """All rows are done: put them in order, and say so in the manifest.

        Args:
            sort: False leaves them in the order in which they came.

        Raises:
            UsageError: A stream ended before the place it was read to when the output was made.
            StorageError: The disk refused; the same command ends it later.
        """
        if self._stream is not None:
            self._stream.ended()
        self.sync()
        moved = [file.sort() for file in self._files] if sort else []
        if any(moved) or self.manifest.complete != len(self.done):
            self._store(complete=len(self.done))
        self.complete = True

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what there is, and let others write."""
        with self._closing:
            if error is None:
                self.sync()
            else:
                with contextlib.suppress(StorageError):  # what went wrong first is told
                    self.sync()

    def _store(self, **changes: object) -> None:
        changed = replace(self.manifest, **changes)  # type: ignore[arg-type]
        save(self._beside, changed)
        self.manifest = changed
