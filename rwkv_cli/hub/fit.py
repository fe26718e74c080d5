"""How models fit this machine: what is free, and what a model needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.engine.memory import this_machine
from rwkv_cli.hub.catalogue import Entry
from rwkv_cli.sizes import free_bytes

_BESIDES = 400 << 20  # bytes that the program and the states take
_INT8, _INT4 = 0.54, 0.30  # of 16-bit weights, scales included; what stays in 16 bits is counted
_SWIFT = 7e9  # bytes of weights that a processor still reads several times a second


@dataclass(frozen=True, slots=True)
class Room:
    """What is free.

    Attributes:
        memory: Bytes of memory that programs can have; None where the system does not tell.
        disk: Bytes on the disk of the models folder; None where nobody tells.
        card: Bytes of the card that has most; 0 where there is none.
    """

    memory: int | None
    disk: int | None
    card: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """How a model fits.

    Attributes:
        how: "fits"; "int8" or "int4" when it fits so; "memory" or "disk" when that is too small;
            "unknown" when its size is not known.
        recommended: Whether it is the one to take.
    """

    how: str
    recommended: bool = False

    @property
    def runs(self) -> bool:
        """Whether it can be used here in some precision."""
        return self.how in ("fits", "int8", "int4")


def room_here(folder: Path) -> Room:
    """Look at this machine, and at the disk of a folder."""
    machine = this_machine()
    card = max((card.free or 0 for card in machine.cards), default=0)
    return Room(machine.free, free_bytes(folder), card)


def fit(entry: Entry, room: Room) -> Fit:
    """Tell how a model fits, as far as its size tells: on the processor or on a card."""
    size = entry.bytes
    if not size:
        return Fit("unknown")
    if room.disk is not None and size > room.disk:
        return Fit("disk")
    if room.memory is None:
        return Fit("fits")
    most = max(room.memory, room.card) - _BESIDES
    if size <= most:
        return Fit("fits")
    if entry.format != "gguf":
        for how, share in (("int8", _INT8), ("int4", _INT4)):
            if size * share <= most:
                return Fit(how)
    return Fit("memory")


def fitted(entries: Sequence[Entry], room: Room) -> list[tuple[Entry, Fit]]:
    """Sort models by how they fit: the one to take, if any runs here; the newest ones, the largest
    first; then the others.
    """
    rows = [(entry, fit(entry, room)) for entry in entries]
    swift = max(_SWIFT, room.card)
    best = max(
        (row for row in rows if row[0].newest and row[1].how == "fits" and row[0].bytes <= swift),
        key=lambda row: row[0].bytes,
        default=next((row for row in rows if row[1].runs), None),
    )

    chosen = best[0] if best else None

    def order(row: tuple[Entry, Fit]) -> tuple[bool, bool, bool, bool, int]:
        entry, how = row
        largest_first = -entry.bytes if entry.newest else 0
        return entry is not chosen, not how.runs, not entry.newest, how.how != "fits", largest_first

    return [
        (entry, Fit(how.how, recommended=entry is chosen)) for entry, how in sorted(rows, key=order)
    ]
