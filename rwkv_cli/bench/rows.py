"""One measurement with everything that is known of it, and the figures that describe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

# What is measured, and in what: seconds a token, seconds, or bytes.
UNITS = {
    "prefill": "s/token",
    "decode": "s/token",
    "load": "s",
    "first_token": "s",
    "state_save": "s",
    "state_load": "s",
    "reread": "s",
    "peak_memory": "bytes",
}


@dataclass(frozen=True, slots=True)
class Engine:
    """What ran.

    Attributes:
        name: As the engine calls its arithmetic, such as "torch cpu bf16".
        dtype: Precision of the weights: fp32, bf16, fp16, int8 or int4.
        threads: Threads on the CPU.
        is_on_cpu: Whether the processor's peak means anything for it.
    """

    name: str
    dtype: str
    threads: int
    is_on_cpu: bool = True


@dataclass(frozen=True, slots=True)
class Share:
    """How much of what the machine can do was used.

    Attributes:
        of: "read bandwidth", or the kind of arithmetic: "fp32", "bf16" or "int8".
        share: From 0 to about 1.
    """

    of: str
    share: float


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        test: A key of `UNITS`.
        runs: One figure for each repeat, in the unit of the test; of a decode, the mean of its
            steps.
        engine: What ran.
        tokens: Tokens read or generated in a repeat.
        depth: Tokens that had been read before.
        batch: Sequences side by side. A token of any of them counts.
        steps: For a decode, the seconds a token of every step of every repeat.
        nbytes: Size of the file of a state.
        share: Of the machine's peak; None where that is unknown or has no meaning.
    """

    test: str
    runs: tuple[float, ...]
    engine: Engine
    tokens: int = 0
    depth: int = 0
    batch: int = 1
    steps: tuple[tuple[float, ...], ...] = ()
    nbytes: int | None = None
    share: Share | None = None

    @property
    def median(self) -> float:
        """The middle one of the repeats."""
        return median(self.runs)

    def to_json(self) -> dict[str, Any]:
        """Write it flat, figures first, every sample last."""
        unit, middle = UNITS[self.test], self.median
        samples = [value for run in self.steps for value in run] or self.runs
        return {
            "test": self.test,
            "tokens": self.tokens,
            "depth": self.depth,
            "batch": self.batch,
            "bytes": self.nbytes,
            "dtype": self.engine.dtype,
            "threads": self.engine.threads,
            "engine": self.engine.name,
            "unit": unit,
            "repeats": len(self.runs),
            "median": middle,
            "min": min(self.runs),
            "max": max(self.runs),
            "p50": quantile(samples, 0.5),
            "p95": quantile(samples, 0.95),
            "tokens_per_second": 1 / middle if unit == "s/token" else None,
            "share": self.share and self.share.share,
            "share_of": self.share and self.share.of,
            "runs": list(self.runs),
            "samples": [list(run) for run in self.steps],
        }


def quantile(values: Sequence[float], part: float) -> float:
    """Give the value that a part of all do not exceed, between two neighbours where it falls there.

    >>> quantile([3.0, 1.0, 2.0], 0.75)
    2.5
    """
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))
