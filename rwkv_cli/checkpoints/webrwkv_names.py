"""From the tensors of an .st file of web-rwkv or Ai00 to those of BlinkDL; knows names, not files.

Their script (convert_safetensors.py of both) makes names lower-case and every weight a half,
renames the bonus and the mixes of RWKV-6, transposes low-rank matrices and tuned states, and calls
the two factors of a LoRA `lora.0` (transposed) and `lora.1`. Nothing in a file says that it is one
of theirs; names tell for RWKV-6, the shapes of the low-rank matrices for RWKV-7, the shape of the
bonus, and that all are halves, for RWKV-5. Files of RWKV-4 are like any other.
"""

from __future__ import annotations

import re

from rwkv_cli.checkpoints.buffers import renamed, transposed
from rwkv_cli.checkpoints.tensors import RawTensor

_V6_MIX = re.compile(r"(blocks\.\d+\.(?:att|ffn)\.time_)mix_([xwkvrg]|w[12])")
_V6_MARK = re.compile(r"blocks\.\d+\.att\.time_decay_w1")
_LOW_RANK = re.compile(r"blocks\.\d+\.att\.(?:[wavg]|time_maa_w|time_decay_w)([12])")
_BONUS = re.compile(r"(blocks\.\d+\.att\.time_)first")
_STATE = re.compile(r"blocks\.\d+\.att\.time_state")
_FACTOR = re.compile(r"(.+\.)lora\.([01])")


def from_webrwkv(tensors: list[RawTensor]) -> list[RawTensor]:
    """The same tensors under BlinkDL's names and the way round he has them; the tensors of files
    that neither project wrote stay as they are.
    """
    names = {tensor.name for tensor in tensors}
    is_v6 = any(map(_V6_MARK.fullmatch, names)) and not any(".time_maa" in name for name in names)
    if is_v6:
        tensors = [renamed(tensor, _V6_MIX.sub(r"\1maa_\2", tensor.name)) for tensor in tensors]
    widths = {t.shape[1] for t in tensors if t.name == "emb.weight" and len(t.shape) == 2}
    across = [_lies_across(tensor, widths) for tensor in tensors]
    is_v5 = all(t.dtype == "F16" for t in tensors) and any(map(_is_bonus_by_channel, tensors))
    is_theirs = is_v5 or is_v6 or any(across)
    return [
        _restored(tensor, is_theirs=is_theirs, is_across=turn)
        for tensor, turn in zip(tensors, across, strict=True)
    ]


def _restored(tensor: RawTensor, *, is_theirs: bool, is_across: bool) -> RawTensor:
    factor = _FACTOR.fullmatch(tensor.name)
    if factor and len(tensor.shape) == 2:
        name = factor[1] + ("lora_B" if factor[2] == "1" else "lora_A")
        return renamed(tensor if factor[2] == "1" else transposed(tensor), name)
    if is_theirs:
        # Their bonus is the number itself, which `time_first` of others is the logarithm of.
        tensor = renamed(tensor, _BONUS.sub(r"\1faaaa", tensor.name))
        is_across = is_across or (_STATE.fullmatch(tensor.name) is not None)
    return transposed(tensor) if is_across and len(tensor.shape) > 1 else tensor


def _lies_across(tensor: RawTensor, widths: set[int]) -> bool:
    """Whether a low-rank matrix is transposed: w1 is (C, D) and w2 is (D, C)."""
    match = _LOW_RANK.fullmatch(tensor.name)
    if match is None or len(tensor.shape) < 2:
        return False
    wide, narrow = tensor.shape[-2:] if match[1] == "1" else tensor.shape[:-3:-1]
    return narrow in widths and wide not in widths


def _is_bonus_by_channel(tensor: RawTensor) -> bool:
    """Whether it is the bonus of RWKV-5.2, which everyone else calls `time_faaaa`."""
    match = _BONUS.fullmatch(tensor.name)
    return match is not None and len(tensor.shape) == 2 and tensor.shape[1] > 1
