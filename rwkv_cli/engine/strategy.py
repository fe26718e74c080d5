"""Where a model runs and in which precision, read from a strategy string such as "cpu bf16"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rwkv_cli.errors import UsageError

DTYPES = ("fp32", "bf16", "fp16", "int8", "int4")
ENGINES = ("native", "torch")
KERNELS = ("auto", "torch", "cuda")
_DEVICE = r"(?P<device>cuda(?::\d+)?|cpu|mps|xpu)"
_SEGMENT = re.compile(_DEVICE + r" +(?P<dtype>fp32|bf16|fp16)(?P<bits>i8|i4)?")


@dataclass(frozen=True, slots=True)
class Strategy:
    """One device, one precision for the matrices.

    Attributes:
        device: A torch device, such as "cpu" or "cuda:0".
        dtype: One of `DTYPES`; None keeps the precision of the file.
        engine: "native" or "torch"; None takes the native one on a CPU where it can be used.
        threads: On a CPU; None is one for each core.
        kernels: On a CUDA device: "torch" for torch's alone, "cuda" for our own or an error; None
            takes our own where they can be had.
    """

    device: str = "cpu"
    dtype: str | None = None
    engine: str | None = None
    threads: int | None = None
    kernels: str | None = None


def parse_strategy(text: str) -> Strategy:
    """Read a strategy string of the reference package that names one device.

    A precision with i8 or i4 behind it means quantized weights: "cpu bf16i8" is int8.

    Raises:
        UsageError: It is malformed, or asks for splits or streaming, which are not supported.
    """
    match = _SEGMENT.fullmatch(text.strip())
    if match:
        bits = match["bits"]
        return Strategy(match["device"], f"int{bits[1:]}" if bits else match["dtype"])
    hint = 'a strategy is a device and a precision, for example "cpu bf16" or "cuda fp16"'
    if "->" in text or "*" in text or re.search(r"(fp16|fp32|bf16)i3", text):
        raise UsageError(
            f"strategy {text!r} splits the model or streams it, which this version does not do",
            hint=hint,
        )
    raise UsageError(f"strategy {text!r} is not understood", hint=hint)


def choose_strategy(
    strategy: str | None,
    device: str | None,
    dtype: str | None,
    engine: str | None = None,
    threads: int | None = None,
    kernels: str | None = None,
) -> Strategy:
    """Combine a strategy string with the short forms, which overrule it.

    Raises:
        UsageError: A name is unknown, or the parts contradict each other.
    """
    base = parse_strategy(strategy) if strategy else Strategy()
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if device is not None and not re.fullmatch(_DEVICE, device):
        raise UsageError(f"device is {device!r}; it must be cpu, cuda, cuda:1, mps or xpu")
    if engine is not None and engine not in ENGINES:
        raise UsageError(f"engine is {engine!r}; it must be native or torch")
    if kernels is not None and kernels not in KERNELS:
        raise UsageError(f"kernels is {kernels!r}; it must be one of {', '.join(KERNELS)}")
    wanted = None if kernels == "auto" else kernels
    chosen = Strategy(device or base.device, dtype or base.dtype, engine, threads, wanted)
    _check_engine(chosen)
    return chosen


def _check_engine(chosen: Strategy) -> None:
    """Refuse what no engine does.

    Raises:
        UsageError: The device, the precision, the engine and the kernels contradict each other.
    """
    if chosen.engine == "native" and chosen.device != "cpu":
        raise UsageError(f"the native engine runs on a CPU, not on {chosen.device}")
    on_card = chosen.device.startswith("cuda") and chosen.kernels != "torch"
    packs = chosen.engine != "torch" and (chosen.device == "cpu" or on_card)
    if chosen.dtype in ("int8", "int4") and not packs:
        raise UsageError(
            f"{chosen.dtype} runs on the native engine of a CPU and on the CUDA kernels alone",
            hint="--dtype bf16",
        )
    if chosen.kernels == "cuda" and not chosen.device.startswith("cuda"):
        raise UsageError(
            f"the CUDA kernels run on a CUDA device, not on {chosen.device}", hint="--device cuda"
        )
    if chosen.kernels == "cuda" and chosen.engine == "torch":
        raise UsageError("the torch engine does not use the CUDA kernels", hint="--kernels auto")
