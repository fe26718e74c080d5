"""States of prompts that were read, so that a document is read once, however often it is asked.

An entry is a state file whose name is the SHA-256 of the model, its arithmetic, its tokenizer and
the tokens. Entries stand at the seams of a prompt: after its system text and each of its documents,
at its end, at 512, 1024, 2048 tokens and so on, and where it parts from a prompt that was read
before. A hit is checked like any state file, and its tokens are compared with those that are asked
for: it cannot be the wrong one.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.state import State
from rwkv_cli.engine.statefile import state_parts
from rwkv_cli.errors import RwkvError, StorageError
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.disk import Disk

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from numpy.typing import NDArray

SHORTEST = 64  # tokens that are worth an entry: fewer are read before a file is
MARGIN = 32  # bytes before a seam: what follows it may change how these are cut into tokens
LADDER = 512  # the first of the positions that double
AHEAD = 1 << 20  # tokens that are looked at before any is read
_COMPARED = 64  # entries with which a prompt is compared to see where it parts from them
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# States of prompts, made by rwkv.\n"


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a prompt came to.

    Attributes:
        total: Tokens of the prompt.
        cached: How many of them did not have to be read.
    """

    total: int
    cached: int


class PrefixCache:
    """Reads prompts with the help of those that were read before.

    Args:
        folder: Where the entries are; made with the first.
        disk: How the disk is touched.
        budget: How much room entries may take.
        enabled: Whether to look for entries and to make some.
    """

    def __init__(
        self,
        folder: Path,
        *,
        disk: Disk | None = None,
        budget: Budget | None = None,
        enabled: bool = True,
    ) -> None:
        self._folder, self._disk = folder, disk or Disk()
        self._budget = budget or Budget(folder, folder)
        self._enabled = enabled
        self._pool: ThreadPoolExecutor | None = None
        self._writing: list[Future[None]] = []
        self.failure: StorageError | None = None  # why an entry could not be kept

    def read(
        self,
        model: Model,
        pieces: Iterable[Sequence[int]],
        state: State,
        seams: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Reading:
        """Read a prompt, advancing the state that is given.

        Only a prompt that begins before any token uses entries.

        Args:
            model: Who reads.
            pieces: Its tokens.
            state: Advanced in place.
            seams: Places between parts of its text, in bytes; may grow while the pieces are taken.
            progress: Called with the number of tokens that are done.
        """
        pieces = iter(pieces)
        if state.position:
            return Reading(model.advance_stream(pieces, state, progress), 0)
        ids, rest = _ahead(pieces)
        places = set(self._places(model, ids, seams))
        if model.engine.exact_splits and self._enabled:
            places |= set(self._shared(ids))
        keys = dict(zip(sorted(places), _keys(model, ids, sorted(places)), strict=True))
        start = self._restore(model, ids, keys, state) if self._enabled else 0
        self._advance(model, ids, keys, state, progress)
        total = len(ids)

        def later(count: int) -> None:
            if progress:
                progress(total + count)

        total += model.advance_stream(rest, state, later)
        return Reading(total, start)

    def close(self) -> None:
        """Wait until what was read is kept."""
        for future in self._writing:
            future.result()
        if self._pool is not None:
            self._pool.shutdown()
        self._writing, self._pool = [], None

    def _places(self, model: Model, ids: Sequence[int], seams: Sequence[int]) -> list[int]:
        """Choose where the prompt is cut, in tokens; its end is the last."""
        count = len(ids)
        found = {count, *_token_places(model, ids, seams)}
        found |= {LADDER << k for k in range(32) if LADDER << k < count}
        return sorted(place for place in found if place >= SHORTEST)

    def _restore(self, model: Model, ids: Sequence[int], keys: dict[int, str], state: State) -> int:
        """Take over the longest entry there is; how many tokens it has."""
        for place in sorted(keys, reverse=True):
            path = self._path(keys[place])
            if not path.is_file():
                continue
            try:
                kept = model.load_state(path)
            except RwkvError:  # damaged, or gone meanwhile: a miss
                self._disk.discard(path)
                continue
            same = kept.identity is not None and list(kept.tokens) == list(ids[:place])
            if same and kept.logits is not None:
                with contextlib.suppress(OSError):  # says that it was used
                    os.utime(path)
                state.become(kept)
                return place
        return 0

    def _shared(self, ids: Sequence[int]) -> Iterator[int]:
        """Give where the prompt parts from ones that were read before: the longest that is wholly
        its beginning, and the place where it leaves another last.
        """
        asked = np.asarray(ids, dtype=np.uint32)
        whole = parting = 0
        for path in self._recent():
            tokens = _tokens_of(path)
            count = min(len(tokens), len(asked))
            differ = np.flatnonzero(tokens[:count] != asked[:count])
            shared = int(differ[0]) if len(differ) else count
            parting = max(parting, shared)
            if shared == len(tokens):
                whole = max(whole, shared)
        if whole >= SHORTEST:
            yield whole
        if parting - whole >= SHORTEST:
            yield parting

    def _advance(
        self,
        model: Model,
        ids: Sequence[int],
        keys: dict[int, str],
        state: State,
        progress: Progress | None,
    ) -> None:
        """Read on, piece by piece, keeping the state after each."""
        places = sorted({*keys, len(ids)})
        for place in (p for p in places if p > state.position):
            before = state.position

            def told(count: int, before: int = before) -> None:
                if progress:
                    progress(before + count)

            model.advance_stream([ids[before:place]], state, told)
            if self._enabled and place in keys:
                self._keep(keys[place], state.clone())

    def _keep(self, key: str, state: State) -> None:
        """Write an entry while other things go on."""
        if self._path(key).is_file():
            return
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(1)
        self._writing.append(self._pool.submit(self._write, key, state))

    def _write(self, key: str, state: State) -> None:
        path = self._path(key)
        content = b"".join(state_parts(str(path), state))
        try:
            self._disk.make_folder(path.parent)
            self._disk.publish(self._folder / "CACHEDIR.TAG", [_TAG.encode()], durable=False)
            if self._budget.make_room(len(content)):
                self._disk.publish(path, [content], durable=False)
        except StorageError as error:  # costs time when the prompt is read again, and nothing else
            self.failure = error

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.rwkvstate"

    def _recent(self) -> list[Path]:
        """List the entries that were used last."""
        return [row.path for row in self._budget.prefixes()[-_COMPARED:]]


def _ahead(pieces: Iterator[Sequence[int]]) -> tuple[array[int], Iterator[Sequence[int]]]:
    """Take the tokens that are looked at before any is read, and what comes after them."""
    ids = array("I")
    for piece in pieces:
        ids.extend(piece)
        if len(ids) >= AHEAD:
            return ids, pieces
    return ids, iter(())


def _token_places(model: Model, ids: Sequence[int], seams: Sequence[int]) -> Iterator[int]:
    """Give the number of tokens that end well before each seam."""
    wanted = sorted(seam - MARGIN for seam in seams)
    ends = itertools.accumulate(len(model.tokenizer.token_bytes(token)) for token in ids)
    for count, end in enumerate(ends):
        while wanted and end > wanted[0]:
            wanted.pop(0)
            yield count
        if not wanted:
            return
    yield len(ids)


def _keys(model: Model, ids: Sequence[int], places: Sequence[int]) -> Iterator[str]:
    """Give the name of the entry at each place, in ascending order.

    Where an engine's result depends on how a prompt is cut, the name depends on it too.
    """
    who = model.identity
    digest = hashlib.sha256()
    for part in ("prefix 1", who.arch, who.weights, who.tokenizer, who.numerics):
        digest.update(part.encode() + b"\n")
    tokens = np.asarray(ids, dtype="<u4")
    before = 0
    for place in places:
        digest.update(tokens[before:place].tobytes())
        if not model.engine.exact_splits:
            digest.update(b"cut")
        before = place
        yield digest.hexdigest()


def _tokens_of(path: Path) -> NDArray[np.uint32]:
    """Read the tokens of an entry, unproven: they only tell where an entry would help."""
    nothing = np.zeros(0, np.uint32)
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(min(size, 1 << 20)))
            start, end = header["tokens"]["data_offsets"]
            if not 0 <= start <= end <= path.stat().st_size:
                return nothing
            file.seek(8 + size + start)
            return np.frombuffer(file.read(end - start), dtype="<u4")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return nothing  # gone or damaged: whoever asks for it finds out
