"""From what rwkv.cpp stores to what a BlinkDL checkpoint holds; knows names, not files.

Each rule undoes one line of convert_pytorch_to_ggml.py of rwkv.cpp: it exponentiates decays
and v5 bonuses, flattens time-mixing vectors, transposes low-rank matrices and joins the six
token-shift mixes of v7 into one tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from rwkv_cli.checkpoints.buffers import computed, renamed, reshaped, row, transposed
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import RawTensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

_Rule = Callable[[RawTensor, Source], list[RawTensor]]

# The letters of x_rwkvag are the order of the six parts.
_MIXES = "rwkvag"
# The smallest float32 above 0, and the largest below 1: a decay rounded to 0 or 1 stays finite.
_LEAST, _MOST = 2.0**-149, 1 - 2.0**-24


def restore(tensors: list[RawTensor], source: Source) -> list[RawTensor]:
    """The tensors of a checkpoint with original names, shapes and values, in order.

    Raises:
        RefusedError: A tensor has a shape or values the converter cannot have made.
    """
    parts = {_part(tensor.name) for tensor in tensors}
    rules = _rules_of(parts)
    restored: list[RawTensor] = []
    for tensor in tensors:
        rule = rules.get(_part(tensor.name))
        restored += rule(tensor, source) if rule else [tensor]
    return restored


def _part(name: str) -> str:
    """The name of a tensor without its block: `blocks.3.att.w1` gives `att.w1`."""
    return name.split(".", 2)[-1] if name.startswith("blocks.") else name


def _rules_of(parts: set[str]) -> dict[str, _Rule]:
    if "att.k_k" in parts:
        return _V7
    if "att.time_maa_x" in parts:
        return _V6
    return _V5 if "att.ln_x.weight" in parts else _V4


def _flipped(tensor: RawTensor, source: Source) -> list[RawTensor]:
    if len(tensor.shape) < 2:
        raise _impossible(tensor, source)
    return [transposed(tensor)]


def _split_mixes(tensor: RawTensor, source: Source) -> list[RawTensor]:
    """(6, 1, C) to six times (1, 1, C); the parts stay where they are."""
    if tensor.shape[0] != len(_MIXES):
        raise _impossible(tensor, source)
    prefix = tensor.name.removesuffix("rwkvag")
    shape = (1, 1, prod(tensor.shape[1:]))
    return [
        renamed(reshaped(row(tensor, index), shape), prefix + mix)
        for index, mix in enumerate(_MIXES)
    ]


def _vector(tensor: RawTensor, _: Source) -> list[RawTensor]:
    """To (1, 1, C), the shape of time-mixing vectors in v4 to v6."""
    return [reshaped(tensor, (1, 1, prod(tensor.shape)))]


def _heads(tensor: RawTensor, _: Source) -> list[RawTensor]:
    """(H, N, 1) to (H, N), and (H, 1, 1) to (H,)."""
    shape = tensor.shape
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return [reshaped(tensor, shape)]


def _decay_v4(tensor: RawTensor, source: Source) -> list[RawTensor]:
    """Inverse of x = -exp(d)."""
    return [_logarithm(tensor, source, sign=-1.0)]


def _bonus_v5(tensor: RawTensor, source: Source) -> list[RawTensor]:
    """Inverse of x = exp(u)."""
    return _heads(_logarithm(tensor, source, sign=1.0), source)


def _decay_v5(tensor: RawTensor, source: Source) -> list[RawTensor]:
    """Inverse of x = exp(-exp(d))."""

    def inverse(values: Values) -> Values:
        import numpy as np

        if not ((values >= 0) & (values <= 1)).all():
            raise _impossible(tensor, source)
        return np.asarray(np.log(-np.log(values.clip(_LEAST, _MOST))))

    return _heads(_recomputed(tensor, source, inverse), source)


def _logarithm(tensor: RawTensor, source: Source, sign: float) -> RawTensor:
    def inverse(values: Values) -> Values:
        import numpy as np

        values = values * sign
        if not ((values >= 0) & np.isfinite(values)).all():
            raise _impossible(tensor, source)
        return np.asarray(np.log(values.clip(min=_LEAST)))

    return _recomputed(tensor, source, inverse)


def _recomputed(
    tensor: RawTensor, source: Source, inverse: Callable[[Values], Values]
) -> RawTensor:
    """The tensor under the inverse of a function, computed in float64."""
    if tensor.dtype != "F32" or tensor.coding:
        raise _impossible(tensor, source)
    return computed(tensor, tensor.shape, lambda values: inverse(values.astype("<f8")))


def _impossible(tensor: RawTensor, source: Source) -> Exception:
    return source.refused(
        f"is corrupt: {tensor.name} has a shape, type or values that rwkv.cpp never writes"
    )


_V4: dict[str, _Rule] = {
    "att.time_decay": _decay_v4,
    **dict.fromkeys((f"att.time_mix_{mix}" for mix in "kvr"), _vector),
    **dict.fromkeys((f"ffn.time_mix_{mix}" for mix in "kr"), _vector),
}
_V5: dict[str, _Rule] = {
    "att.time_decay": _decay_v5,
    "att.time_first": _bonus_v5,
    "att.time_faaaa": _heads,
    **dict.fromkeys((f"att.time_mix_{mix}" for mix in "kvrg"), _vector),
    **dict.fromkeys((f"ffn.time_mix_{mix}" for mix in "kr"), _vector),
}
_V6: dict[str, _Rule] = {
    "att.time_decay": _vector,
    "att.time_faaaa": _heads,
    **dict.fromkeys((f"att.time_maa_{mix}" for mix in "xwkvrg"), _vector),
    **dict.fromkeys((f"ffn.time_maa_{mix}" for mix in "kr"), _vector),
    **dict.fromkeys(
        ("att.time_maa_w1", "att.time_maa_w2", "att.time_decay_w1", "att.time_decay_w2"), _flipped
    ),
}
_V7: dict[str, _Rule] = {
    "att.x_rwkvag": _split_mixes,
    **dict.fromkeys((f"att.{matrix}{end}" for matrix in "wavg" for end in "12"), _flipped),
}
