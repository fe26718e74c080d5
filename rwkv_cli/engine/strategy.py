"""Where a model runs and in which precision, read from a strategy string such as "cpu bf16"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rwkv_cli.errors import UsageError

DTYPES = ("fp32", "bf16", "fp16")
_DEVICE = r"(?P<device>cuda(?::\d+)?|cpu|mps|xpu)"
_SEGMENT = re.compile(_DEVICE + " +(?P<dtype>fp32|bf16|fp16)")


@dataclass(frozen=True, slots=True)
class Strategy:
    """One device, one precision for the matrices.

    Attributes:
        device: A torch device, such as "cpu" or "cuda:0".
        dtype: "fp32", "bf16" or "fp16"; None keeps the precision of the file.
    """

    device: str = "cpu"
    dtype: str | None = None


def parse_strategy(text: str) -> Strategy:
    """Read a strategy string of the reference package that names one device.

    Raises:
        UsageError: It is malformed, or asks for splits, streaming or quantization, which are not
            supported.
    """
    match = _SEGMENT.fullmatch(text.strip())
    if match:
        return Strategy(match["device"], match["dtype"])
    hint = 'a strategy is a device and a precision, for example "cpu bf16" or "cuda fp16"'
    if "->" in text or "*" in text or re.search(r"(fp16|fp32|bf16)i[348]", text):
        raise UsageError(
            f"strategy {text!r} splits or quantizes the model, which this version does not do",
            hint=hint,
        )
    raise UsageError(f"strategy {text!r} is not understood", hint=hint)


def choose_strategy(strategy: str | None, device: str | None, dtype: str | None) -> Strategy:
    """Combine a strategy string with the short forms, which overrule it.

    Raises:
        UsageError: A name is unknown.
    """
    base = parse_strategy(strategy) if strategy else Strategy()
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if device is not None and not re.fullmatch(_DEVICE, device):
        raise UsageError(f"device is {device!r}; it must be cpu, cuda, cuda:1, mps or xpu")
    return Strategy(device or base.device, dtype or base.dtype)
