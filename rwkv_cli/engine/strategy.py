"""Where a model runs and in which precision, put together from a strategy string and its short
forms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rwkv_cli.errors import UsageError

if TYPE_CHECKING:
    from rwkv_cli.engine.segments import Segment

AUTO = "auto"
DTYPES = ("fp32", "bf16", "fp16", "int8", "int4")
ENGINES = ("native", "torch")
KERNELS = ("auto", "torch", "cuda")
_SMALL = 64 << 20  # bytes of a weights file
DEVICES = r"cuda(?::[0-9]{1,3})?|cpu|mps|xpu"  # as a regular expression


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a user allows a model to take, in bytes; None is all that is free."""

    vram: int | None = None
    ram: int | None = None


@dataclass(frozen=True, slots=True)
class Strategy:
    """Where a model runs: on one device, in segments, or where it fits best.

    Attributes:
        device: A torch device, such as "cpu" or "cuda:0".
        dtype: One of `DTYPES`; None keeps the precision of the file.
        engine: "native" or "torch"; None takes the native one on a CPU where it can be used.
        threads: On a CPU; None is one for each core.
        kernels: On a CUDA device: "torch" for torch's alone, "cuda" for our own or an error; None
            takes our own where they can be had.
        segments: Where the layers go, when a device and a precision do not say it.
        auto: Whether device and precision follow from the memory that is free.
        budgets: What may be taken of it.
    """

    device: str = "cpu"
    dtype: str | None = None
    engine: str | None = None
    threads: int | None = None
    kernels: str | None = None
    segments: tuple[Segment, ...] = ()
    auto: bool = False
    budgets: Budgets = field(default_factory=Budgets)


def is_small(path: Path) -> bool:
    """Tell whether a model is so small that neither threads nor a card make it faster."""
    return path.is_file() and path.stat().st_size < _SMALL


def parse_strategy(text: str) -> Strategy:
    """Read a strategy string of the reference package, or "auto".

    A precision with i8 or i4 behind it means quantized weights: "cpu bf16i8" is int8.

    Raises:
        PointedError: It is malformed.
    """
    if text.strip() == AUTO:
        return Strategy(auto=True)
    from rwkv_cli.engine.segments import parse_segments

    segments = parse_segments(text)
    first = segments[0]
    if len(segments) == 1 and (not first.streams or first.device == "cpu"):
        return Strategy(first.device, first.dtype)  # one segment gets all layers
    return Strategy(first.device, segments=segments)


def choose_strategy(
    strategy: str | None,
    device: str | None,
    dtype: str | None,
    engine: str | None = None,
    threads: int | None = None,
    kernels: str | None = None,
) -> Strategy:
    """Combine a strategy string with the short forms, which overrule it; without any of them the
    strategy is "auto".

    Raises:
        UsageError: A name is unknown, or the parts contradict each other.
    """
    asked = (strategy, device, dtype, engine)
    base = parse_strategy(strategy) if strategy else Strategy(auto=not any(asked))
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if device is not None and not re.fullmatch(DEVICES, device):
        raise UsageError(f"device is {device!r}; it must be cpu, cuda, cuda:1, mps or xpu")
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"engine is {engine!r}; it must be native or torch")
    if kernels is not None and kernels not in KERNELS:
        raise UsageError(f"kernels is {kernels!r}; it must be one of {', '.join(KERNELS)}")
    base = replace(
        base, engine=engine, threads=threads, kernels=None if kernels == "auto" else kernels
    )
    if device or dtype or (base.auto and (engine or base.kernels == "cuda")):
        base = replace(base, auto=False, segments=())
        base = replace(base, device=device or base.device, dtype=dtype or base.dtype)
    _check_engine(base)
    return base


def _check_engine(chosen: Strategy) -> None:
    """Refuse what no engine does.

    Raises:
        UsageError: The device, the engine and the kernels contradict each other.
    """
    if chosen.engine == "native" and (chosen.device != "cpu" or chosen.segments):
        where = "in segments" if chosen.segments else f"on {chosen.device}"
        hint = "--engine torch" if chosen.segments else "--device cpu"
        raise UsageError(f"the native engine runs on a CPU, not {where}", hint=hint)
    if chosen.kernels == "cuda" and not chosen.device.startswith("cuda"):
        raise UsageError(
            f"the CUDA kernels run on a CUDA device, not on {chosen.device}", hint="--device cuda"
        )
    if chosen.kernels == "cuda" and (chosen.engine == "torch" or chosen.segments):
        raise UsageError("the torch engine does not use the CUDA kernels", hint="--kernels auto")
