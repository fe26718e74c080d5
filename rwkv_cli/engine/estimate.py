"""What running a model in a certain way takes: bytes on each device, seconds a token. From the
header of the file and what is known of the machine; imports neither numpy nor torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from rwkv_cli.engine.footprint import (
    Bytes,
    Footprint,
    cuda_footprint,
    native_footprint,
    state_bytes,
    torch_footprint,
)
from rwkv_cli.engine.memory import Machine
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.segments import Place, Segment, in_parts, places, written
from rwkv_cli.engine.strategy import Budgets
from rwkv_cli.sizes import amount

# What a process needs beside weights and state: code, buffers, a context on a card.
_CODE = {"native": 80 << 20, "torch": 350 << 20, "cuda": 500 << 20}
_CONTEXT = 500 << 20
_PIECES = 64 << 20
_CHUNK = {"native": 144, "torch": 256, "cuda": 1024}  # tokens of a prefill computed at once
_STAGES = 2  # layers of a streamed segment that are on the device at a time

# Shares of the bytes a second that memory gives, by engine and device; from measurements.
_REACHED = {"native": 0.9, "cuda": 0.7, "torch": 0.55}
_QUANTIZED_NATIVE = 0.83
# Where torch widens weights on a processor before it multiplies.
_ON_CPU = {"fp32": 0.45, "bf16": 0.18, "fp16": 0.18, "i8": 0.09, "i4": 0.03}
# Of work in a layer that no byte explains: small operations, and calling them (torch on a card:
# benchmarks/records/split-gpu.md).
_LAYER_SECONDS = {"native": 2e-5, "cuda": 1.5e-5, "torch": 2.1e-3}
_LAYER_ON_CPU = 1.2e-3
# Of the weights of a layer, what a token of a trained model reads: the channel-mixing's value
# matrix is a third of a layer, and most of what enters it is zero.
_SPARSE_READ = {"v7": 0.75}


@dataclass(frozen=True, slots=True)
class Row:
    """Neighbouring parts of a model that are kept alike.

    Attributes:
        what: "embedding", "layers 0-11", "layer 3" or "head".
        device: Where they are computed.
        dtype: Precision of their matrices: "fp16", "fp16i8"; of the native and the CUDA engine
            also "int8", "int4".
        layers: How many layers of the model.
        resident: Bytes of weights that stay on the device.
        streamed: Bytes that wait in host memory and are brought for every pass.
        state: Bytes of state, on the device.
        read: Bytes of weights that a token reads.
    """

    what: str
    device: str
    dtype: str
    layers: int = 0
    resident: int = 0
    streamed: int = 0
    state: int = 0
    read: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model would run.

    Attributes:
        engine: "native", "cuda" or "torch".
        strategy_text: A strategy string that asks for just this.
        segments: The same, read.
        rows: What lies where.
        peaks: Bytes taken at most on each device, "cpu" among them, with what the process itself
            needs.
        free: What is free on each of them, or allowed; without those of which nothing is known.
        seconds_per_token: Predicted; None where the speed of a device is not known.
        why: Why it does not fit, or why nothing better was chosen; empty when there is nothing to
            say.
        natural: Whether every tensor keeps the precision of the file.
    """

    engine: str
    strategy_text: str
    segments: tuple[Segment, ...]
    rows: tuple[Row, ...]
    peaks: dict[str, int]
    free: dict[str, int] = field(default_factory=dict)
    seconds_per_token: float | None = None
    why: str = ""
    natural: bool = False

    @property
    def split(self) -> bool:
        """Whether it takes more than one device or precision, or streams layers."""
        return in_parts(self.segments)

    @property
    def total(self) -> int:
        """Bytes of weights and state on all devices together."""
        return sum(row.resident + row.streamed + row.state for row in self.rows)

    @property
    def lacking(self) -> dict[str, int]:
        """Bytes that are missing on each device that has too few."""
        return {d: self.peaks[d] - room for d, room in self.free.items() if self.peaks[d] > room}

    @property
    def fits(self) -> bool:
        """Whether there is room on every device of which the room is known."""
        return not self.lacking


def estimate(
    file: ModelFile,
    segments: Sequence[Segment],
    engine: str,
    machine: Machine,
    budgets: Budgets | None = None,
    *,
    natural: bool = False,
) -> Plan:
    """Say what a way to run a model takes.

    Args:
        file: The model.
        segments: As `settle` gives them.
        engine: "native", "cuda" or "torch".
        machine: What there is.
        budgets: What may be taken of it; None is all.
        natural: Whether every tensor keeps the precision of the file, which the segments name.
    """
    where = places(segments, file.dims.layers + 1)
    split = in_parts(segments)
    first = where[0]
    on_host = split or (engine == "torch" and first.bits)  # the torch engine of segments
    embedding = replace(first, device="cpu" if on_host else first.device, bits=None)
    sizes = _footprint(file, where, engine, natural=natural)
    state = state_bytes(file.arch, file.dims)
    rows = tuple(_rows(sizes, where, engine, embedding, state))
    # Torch converts in pieces; the library whole tensors, but packs before all of them are there.
    converting = _PIECES
    if engine == "native":
        converting = 0 if natural or first.bits else sizes.largest
    peaks = _peaks(file, sizes, rows, engine, where, converting)
    return _told(
        Plan(
            engine,
            written(segments if split else [replace(segments[0], count=None)]),
            tuple(segments),
            rows,
            peaks,
            _free(peaks, machine, budgets or Budgets()),
            _seconds(file, rows, engine, machine),
            natural=natural,
        ),
        budgets or Budgets(),
    )


def _footprint(file: ModelFile, where: list[Place], engine: str, *, natural: bool) -> Footprint:
    """Measure the parts of a model."""
    dtype = None if natural else _dtype(where[0])
    if engine == "native":
        return native_footprint(file, dtype)
    if engine == "cuda":
        return cuda_footprint(file, _dtype(where[0]))
    if natural:
        where = [replace(place, floats="") for place in where]
    return torch_footprint(file, where, None if natural else where[0].floats)


def _dtype(place: Place) -> str:
    return f"int{place.bits}" if place.bits else place.floats


def _rows(
    sizes: Footprint, where: list[Place], engine: str, embedding: Place, state: int
) -> list[Row]:
    """Put neighbours that are alike into one row."""
    kept = sizes.embedding
    rows = [Row("embedding", embedding.device, _name(embedding, engine),
                resident=kept.resident, read=kept.read)]  # fmt: skip
    number = 0
    for place, group in groupby(zip(where[:-1], sizes.layers, strict=True), key=lambda x: x[0]):
        parts = [part for _, part in group]
        total = sum(parts, Bytes())
        last = number + len(parts) - 1
        what = f"layers {number}-{last}" if last > number else f"layer {number}"
        count = len(parts)
        rows.append(Row(what, place.device, _name(place, engine), count, total.resident,
                        total.streamed, state * count, total.read))  # fmt: skip
        number += count
    end = where[-1]
    rows.append(Row("head", end.device, _name(end, engine), resident=sizes.head.resident,
                    read=sizes.head.read))  # fmt: skip
    return rows


def _name(place: Place, engine: str) -> str:
    if engine == "torch":
        return place.floats + (f"i{place.bits}" if place.bits else "")
    return _dtype(place)


def _peaks(
    file: ModelFile,
    sizes: Footprint,
    rows: Sequence[Row],
    engine: str,
    where: list[Place],
    converting: int,
) -> dict[str, int]:
    """Add up each device: weights, state, what is computed with, and on the host what waits."""
    peaks = {"cpu": _CODE[engine] + converting}
    work = working_bytes(file, engine)
    for device in {row.device for row in rows} - {"cpu"}:
        peaks[device] = _CONTEXT
    for row in rows:
        peaks[row.device] += row.resident + row.state
        peaks["cpu"] += row.streamed
    if engine == "cuda" and where[0].bits:  # a prefill unpacks matrices, into one for each shape
        letters = file.dims.letters
        work += 2 * file.dims.width * (2 * letters["F"] + letters["A"])
    for device in {place.device for place in where}:
        moved = [part.streamed for place, part in zip(where[:-1], sizes.layers, strict=True)
                 if place.device == device and place.streamed]  # fmt: skip
        peaks[device] += work + min(_STAGES, len(moved)) * max(moved, default=0)
    return peaks


def working_bytes(file: ModelFile, engine: str) -> int:
    """Estimate what the inputs and results of a chunk of tokens take."""
    letters, rows = file.dims.letters, _CHUNK[engine]
    return 4 * (rows * (2 * letters["F"] + 16 * file.dims.width) + 2 * file.dims.vocab)


def _free(peaks: dict[str, int], machine: Machine, budgets: Budgets) -> dict[str, int]:
    """Say what may be taken on each device that has a share."""
    free = {}
    for device in peaks:
        card = machine.card(device)
        room = machine.free if device == "cpu" else card.free if card else None
        allowed = budgets.ram if device == "cpu" else budgets.vram
        known = [n for n in (room, allowed) if n is not None]
        if known:
            free[device] = min(known)
    return free


def _seconds(file: ModelFile, rows: Sequence[Row], engine: str, machine: Machine) -> float | None:
    """Predict the time of a token: what it reads by the speed of what it is read from. While a
    layer is computed the next is copied, so that the slower of both counts.
    """
    total = 0.0
    sparse = _SPARSE_READ.get(file.arch.name, 1.0) if engine == "native" else 1.0
    for row in rows:
        card = machine.card(row.device)
        speed = machine.read if row.device == "cpu" else card.read if card else None
        if speed is None:
            return None
        if row.what == "embedding":
            continue
        share = sparse if row.layers else 1.0
        computing = (share * row.read + 2 * row.state) / (speed * _reached(row, engine))
        by_torch_here = engine == "torch" and row.device == "cpu"
        computing += row.layers * (_LAYER_ON_CPU if by_torch_here else _LAYER_SECONDS[engine])
        if row.streamed:
            link = card.link if card else speed
            if link is None:
                return None
            computing = max(computing, row.streamed / link)
        total += computing
    return total


def _reached(row: Row, engine: str) -> float:
    if engine == "torch" and row.device == "cpu":
        return _ON_CPU[row.dtype[4:] or row.dtype]
    if engine == "native" and row.dtype.startswith("int"):
        return _QUANTIZED_NATIVE
    return _REACHED[engine]


def _told(plan: Plan, budgets: Budgets) -> Plan:
    """Add the sentence on what is missing."""
    if plan.fits:
        return plan
    parts = []
    for device in plan.lacking:
        room = plan.free[device]
        is_bound = room == (budgets.ram if device == "cpu" else budgets.vram)
        there = f"{amount(room)} are {'allowed' if is_bound else 'free'}"
        parts.append(f"{amount(plan.peaks[device])} on {device}, where {there}")
    return replace(plan, why=f"needs {' and '.join(parts)}")
