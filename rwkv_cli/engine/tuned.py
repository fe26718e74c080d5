"""Initial states that others tuned: `blocks.N.att.time_state` in a file of tensors.

In RWKV-PEFT's files each is (H, N, N), the value channel first and the key channel second, which
is the order of `wkv` here, for RWKV-5, 6 and 7 alike. (The package `rwkv` transposes them for
versions 5 and 6, because its own states have the key first.)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.tensors import RawTensor
from rwkv_cli.errors import MismatchError, RefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rwkv_cli.engine.model import Model
    from rwkv_cli.engine.state import State

_TENSOR = re.compile(r"(?:.*\.)?blocks\.([0-9]{1,4})\.att\.time_state")


def read_tuned(path: Path, model: Model) -> State:
    """Read a tuned initial state of a model.

    Returns:
        A state before any token, whose `wkv` is the file's.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is damaged, or holds no tuned state.
        MismatchError: It was tuned for a model of another version or size.
    """
    state = model.zero_state()
    with open_checkpoint(path) as checkpoint:
        found = {
            int(match[1]): tensor
            for name, tensor in checkpoint.tensors.items()
            if (match := _TENSOR.fullmatch(name))
        }
        if not found:
            raise RefusedError(f"{path}: holds no tuned state (blocks.N.att.time_state)")
        if "wkv" not in state.arrays:
            raise MismatchError(f"{path}: {model.arch.title} has no state that can be tuned so")
        wkv = state.arrays["wkv"]
        if sorted(found) != list(range(len(wkv))):
            raise MismatchError(f"{path}: has {len(found)} layers, the model has {len(wkv)}")
        for layer, tensor in found.items():
            if tensor.shape != wkv[layer].shape:
                theirs, ours = list(tensor.shape), list(wkv[layer].shape)
                raise MismatchError(f"{path}: has states of {theirs}, the model has {ours}")
            wkv[layer] = _numbers(tensor, path)
    if not np.isfinite(wkv).all():
        raise RefusedError(f"{path}: the state is not finite")
    return state


def _numbers(tensor: RawTensor, path: Path) -> NDArray[np.float32]:
    """Widen the numbers of a tensor to float32."""
    tensor = tensor.plain()
    if tensor.dtype == "BF16":
        bits = np.frombuffer(tensor.data, dtype="<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(tensor.shape)
    kinds = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
    if tensor.dtype not in kinds:
        raise RefusedError(f"{path}: {tensor.name} has type {tensor.dtype}")
    numbers = np.frombuffer(tensor.data, dtype=kinds[tensor.dtype])
    return numbers.astype(np.float32).reshape(tensor.shape)
