"""What this machine has room for, and how fast it reads: the memory that is free on the host and on
each card. Imports neither numpy nor torch.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

from rwkv_cli.checkpoints.bounded_json import parse
from rwkv_cli.errors import RwkvError, StorageError
from rwkv_cli.files import read_regular, write_atomic
from rwkv_cli.native.hostmemory import USUAL_SHARE, free_memory
from rwkv_cli.places import cache_folder

_LARGEST = 1 << 16  # bytes of what was measured
_BUFFER, _SECONDS = 256 << 20, 0.2  # several times the caches; to measure how fast memory is read


@dataclass(frozen=True, slots=True)
class Card:
    """A card.

    Attributes:
        device: What torch calls it.
        name: What it is sold as; empty where nothing tells.
        free: Bytes that are free; None where nothing tells.
        read: Bytes a second that its memory gives at best; None where nothing tells.
        link: Bytes a second that come from the host's memory; None where nothing tells.
    """

    device: str
    name: str = ""
    free: int | None = None
    read: float | None = None
    link: float | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to plan with.

    Attributes:
        free: Bytes of the host's memory that are free; None where nothing tells.
        read: Bytes a second that the processor reads; None where it was not measured.
        cards: The cards that torch could use.
    """

    free: int | None = None
    read: float | None = None
    cards: tuple[Card, ...] = ()

    def card(self, device: str) -> Card | None:
        """Find a card by torch's name; without a number it is the first."""
        full = f"{device}:0" if device.isalpha() else device
        return next((card for card in self.cards if card.device == full), None)


def this_machine(threads: int | None = None, *, measure: bool = False) -> Machine:
    """Look at this machine.

    Args:
        threads: How many will compute, for the speed of reading.
        measure: Whether to measure that speed where it is not known yet, which takes a third of a
            second.
    """
    from rwkv_cli.native.nvidia import nvidia_cards

    cards = tuple(
        Card(
            f"cuda:{number}",
            card.name,
            int(card.total * USUAL_SHARE) if card.free is None else card.free,
            card.read,
            card.link,
        )
        for number, card in enumerate(nvidia_cards())
    )
    return Machine(free_memory(), read_rate(threads, measure=measure), cards)


def read_rate(threads: int | None, *, measure: bool) -> float | None:
    """Give the bytes a second that threads of this processor read, measured once and kept."""
    from rwkv_cli.native.machine import default_threads

    count = threads or default_threads()
    key = f"{_processor()} x{count}"
    known = _known_rates()
    if key in known or not measure:
        return known.get(key)
    rate = _measured(count)
    if rate:
        with suppress(StorageError, OSError):
            path = _rates_file()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, [json.dumps({**known, key: rate}).encode()])
    return rate


def _measured(threads: int) -> float | None:
    try:
        from rwkv_cli.native.measure import read_bandwidth
        from rwkv_cli.native.pool import Pool

        return read_bandwidth(Pool(threads), _BUFFER, _SECONDS)
    except RwkvError:  # there is no native library, or too little memory
        return None


def _rates_file() -> Path:
    return cache_folder() / "machine.json"


def _known_rates() -> dict[str, float]:
    """Read what was measured before; a file that is damaged knows nothing."""
    try:
        found = parse(read_regular(_rates_file(), _LARGEST))
    except (RwkvError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, float) and 0 < v < inf}


def _processor() -> str:
    """Name the processor, so that a cache on a shared disk serves several machines."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Processor")):
                return line.partition(":")[2].strip()
    from platform import processor

    return processor() or sys.platform
