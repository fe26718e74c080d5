"""The state of a model after some tokens: named float32 arrays, the tokens themselves, the next
logits.

It knows no engine: every engine reads and writes the same arrays, so a state moves between them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rwkv_cli.arch.spec import Arch, Dims, state_shapes
from rwkv_cli.engine.identity import Identity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]


class TokenLog(Sequence[int]):
    """An append-only list of token ids whose copies share storage.

    Copying costs nothing, and appending to the longest copy is amortized constant: a state can
    carry its whole past without making each decoded token cost its length. The first ids may be
    forgotten: they count, but cannot be had.

    Args:
        ids: Those that are remembered.
        forgotten: How many there were before them.
    """

    __slots__ = ("_ids", "_length", "forgotten")

    def __init__(self, ids: Sequence[int] = (), forgotten: int = 0) -> None:
        self._ids = array("I", ids)
        self._length, self.forgotten = len(self._ids), forgotten

    def __len__(self) -> int:
        return self.forgotten + self._length

    def __iter__(self) -> Iterator[int]:
        """Give those that are remembered."""
        return (self._ids[i] for i in range(self._length))

    def __getitem__(self, index: Any) -> Any:
        places = range(-self.forgotten, self._length)[index]
        first = places if isinstance(places, int) else min(places, default=0)
        if first < 0:
            raise IndexError(f"token {index} is forgotten")
        return [self._ids[i] for i in places] if isinstance(places, range) else self._ids[places]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> TokenLog:
        """Give a list of the same ids that grows on its own."""
        twin = TokenLog(forgotten=self.forgotten)
        twin._ids, twin._length = self._ids, self._length
        return twin

    def extend(self, ids: Sequence[int]) -> None:
        """Append ids; the storage is copied only if another copy has grown past this one."""
        if len(self._ids) != self._length:
            self._ids = self._ids[: self._length]
        self._ids.extend(ids)
        self._length = len(self._ids)

    def forget(self, kept: int) -> None:
        """Remember only the last ones."""
        start = max(0, self._length - kept)
        self._ids = self._ids[start : self._length]
        self.forgotten, self._length = self.forgotten + start, len(self._ids)

    def to_numpy(self) -> NDArray[np.uint32]:
        """Copy the ids that are remembered, (n,) uint32."""
        return np.array(self._ids[: self._length], dtype=np.uint32)


class DeviceArrays(Protocol):
    """A state's arrays where an engine keeps them, off the host."""

    def to_host(self) -> dict[str, Float32s]:
        """Copy every array to the host."""

    def clone(self) -> DeviceArrays:
        """Copy every array where it is."""


class DeviceLogits(Protocol):
    """The scores of the next token where an engine keeps them; never written again."""

    def to_host(self) -> Float32s:
        """Copy them to the host, (V,)."""


@dataclass(frozen=True, slots=True)
class Attachments:
    """What travels with a state so that a generation or a chat can go on from it.

    Attributes:
        sampler: Settings, seed and stream of the random numbers, as JSON; empty when none were in
            use.
        penalty_ids: (n,) uint32 tokens whose repetition is penalized.
        penalty_counts: (n,) float32 their faded counts.
        transcript: The conversation as JSON; empty when it is none.
        tail: Bytes of a character that is not complete yet.
    """

    sampler: str = ""
    penalty_ids: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    penalty_counts: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    transcript: str = ""
    tail: bytes = b""


class State:
    """All that a model remembers, of a size that never grows.

    Attributes:
        tokens: Every token fed so far.
        identity: The model it belongs to; None until a model gives it one.
        attachments: What else a file of it carries.
    """

    __slots__ = ("_host", "_logits", "attachments", "device", "identity", "tokens")

    def __init__(self, arrays: Mapping[str, Float32s]) -> None:
        self._host: dict[str, Float32s] | None = dict(arrays)
        self.device: DeviceArrays | None = None
        self.tokens = TokenLog()
        self._logits: Float32s | DeviceLogits | None = None
        self.identity: Identity | None = None
        self.attachments = Attachments()

    @property
    def arrays(self) -> dict[str, Float32s]:
        """The arrays on the host, each (layers, ...) float32: `wkv[l, h, i, j]`, i the value
        channel, j the key's.

        An engine that kept them on its device gives them back; they are the truth from then on.
        """
        if self._host is None:
            assert self.device is not None
            self._host, self.device = self.device.to_host(), None
        return self._host

    @property
    def logits(self) -> Float32s | None:
        """(V,) float32 scores of the next token, on the host; None before the first token."""
        if self._logits is not None and not isinstance(self._logits, np.ndarray):
            self._logits = self._logits.to_host()
        return self._logits

    @logits.setter
    def logits(self, scores: Float32s | DeviceLogits | None) -> None:
        self._logits = scores

    @property
    def kept_logits(self) -> Float32s | DeviceLogits | None:
        """The scores of the next token wherever they are."""
        return self._logits

    def move_to(self, device: DeviceArrays) -> None:
        """Hand the arrays over to an engine's device; the host copy is dropped."""
        self._host, self.device = None, device

    @property
    def position(self) -> int:
        """The number of tokens fed so far."""
        return len(self.tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, the same at every position."""
        return sum(a.nbytes for a in self.arrays.values())

    def clone(self) -> State:
        """Copy the state; neither copy sees what happens to the other."""
        twin = State({})
        if self._host is None:
            assert self.device is not None
            twin.move_to(self.device.clone())
        else:
            twin._host = {name: a.copy() for name, a in self._host.items()}
        twin.identity, twin.attachments = self.identity, self.attachments
        twin.tokens = self.tokens.copy()
        kept = self._logits
        twin._logits = kept.copy() if isinstance(kept, np.ndarray) else kept
        return twin

    def become(self, other: State) -> None:
        """Take the place of another state, which is given up."""
        self._host, self.device = other._host, other.device
        self.tokens, self._logits = other.tokens, other._logits
        self.identity, self.attachments = other.identity, other.attachments

    def save(self, path: str | Path) -> None:
        """Write the state to a file that checks itself; after a crash there is the old file or the
        new one.

        Raises:
            StorageError: The disk refused; nothing was lost.
            RefusedError: The state holds numbers that are not finite; nothing was written.
        """
        from rwkv_cli.engine.statefile import write_state

        write_state(Path(path), self)


def empty_state(arch: Arch, dims: Dims) -> State:
    """Make the state before any token."""
    # Memory that the system gives as zeros need not be written before it is used.
    zeros = {name: np.zeros(shape, np.float32) for name, shape in state_shapes(arch, dims).items()}
    for name, start in arch.state_start.items():
        zeros[name].fill(start)
    return State(zeros)
