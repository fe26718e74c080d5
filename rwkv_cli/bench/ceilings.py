"""What the machine gives at best, and the share of it that a measurement reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rwkv_cli.arch.spec import Arch, Dims
from rwkv_cli.bench.cost import prefill_operations, touched_bytes
from rwkv_cli.bench.rows import Row, Share
from rwkv_cli.native.measure import ARITHMETIC, arithmetic_peak, read_bandwidth
from rwkv_cli.native.pool import Pool

_BUFFER = 256 << 20  # bytes: several times the caches of a desktop processor
_SECONDS = 0.3
_STEADY = 0.8

# Which arithmetic a precision can use at best; the next one where the processor lacks it.
_BEST = {
    "fp32": ("fp32",),
    "fp16": ("fp32",),
    "bf16": ("bf16", "fp32"),
    "int8": ("int8", "fp32"),
    "int4": ("int8", "fp32"),
}


@dataclass(frozen=True, slots=True)
class Ceilings:
    """The best of a machine with a number of threads.

    Attributes:
        threads: How many.
        read: Bytes a second that are read from memory.
        lowest: The least of `read` that was met; the same when it was measured once.
        arithmetic: Kind ("fp32", "bf16", "int8") to operations a second; without the kinds that
            the processor lacks.
    """

    threads: int
    read: float
    lowest: float
    arithmetic: dict[str, float] = field(default_factory=dict)

    def merged(self, other: Ceilings) -> Ceilings:
        """Take the better figure of each: a peak is what was possible at any time of the run."""
        best = {k: max(peak, other.arithmetic.get(k, peak)) for k, peak in self.arithmetic.items()}
        read, lowest = max(self.read, other.read), min(self.lowest, other.lowest)
        return Ceilings(self.threads, read, lowest, best)

    def warning(self) -> str | None:
        """Say that the machine itself was slower at times; None when it was not."""
        if self.lowest > _STEADY * self.read:
            return None
        return (
            f"memory was read at {self.lowest / 1e9:.1f} and at {self.read / 1e9:.1f} GB/s at "
            "different times of this run: figures are off"
        )

    def to_json(self) -> dict[str, object]:
        """Write them with their units."""
        return {
            "threads": self.threads,
            "read_bytes_per_second": self.read,
            "lowest_read_bytes_per_second": self.lowest,
            "operations_per_second": self.arithmetic,
        }


def measure_ceilings(threads: int, tell: Callable[[str, float], None]) -> Ceilings:
    """Measure the machine; takes about a second.

    Raises:
        UnavailableError: There is no native library to do it with.
    """
    tell("measuring the machine", 0.0)
    pool = Pool(threads)
    read = read_bandwidth(pool, _BUFFER, _SECONDS)
    found = {}
    for done, kind in enumerate(ARITHMETIC, 1):
        tell("measuring the machine", done / 4)
        peak = arithmetic_peak(pool, kind)
        if peak is not None:
            found[kind] = peak
    return Ceilings(threads, read, read, found)


def with_share(row: Row, arch: Arch, dims: Dims, ceilings: Ceilings) -> Row:
    """Add the share of the machine that a measurement reached: of its read bandwidth when
    generating, where each step reads the weights once, and of its arithmetic when reading.
    """
    if row.test == "decode":
        step = row.median * row.batch
        touched = touched_bytes(arch, dims, row.engine.dtype)
        return replace(row, share=Share("read bandwidth", touched / step / ceilings.read))
    if row.test == "prefill":
        kind = next((k for k in _BEST[row.engine.dtype] if k in ceilings.arithmetic), None)
        if kind is not None:
            rate = prefill_operations(arch, dims) / row.median
            return replace(row, share=Share(kind, rate / ceilings.arithmetic[kind]))
    return row
