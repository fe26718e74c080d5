"""RWKV-5 "Eagle" (Peng et al. 2024, arXiv:2404.05892v4) and its two forerunners.

v5.0 has a decay per head and no gate, v5.1 adds the gate, v5.2 is the paper's Eagle with a decay
per channel. Equation numbers refer to that paper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rwkv_cli import ops
from rwkv_cli.arch.spec import LAYER_NORMS, Arch
from rwkv_cli.arch.v4 import channel_mix as channel_mix  # unchanged since RWKV-4
from rwkv_cli.arch.v4 import lerp

if TYPE_CHECKING:
    import torch

GROUP_NORM_EPS = 64e-5  # 1e-5 * head_size_divisor^2, with the divisor 8 of every released model

_COMMON = {
    **LAYER_NORMS,
    "att.time_mix_k": "C",
    "att.time_mix_v": "C",
    "att.time_mix_r": "C",
    "att.receptance.weight": "A C",
    "att.key.weight": "A C",
    "att.value.weight": "A C",
    "att.output.weight": "C A",
    "att.ln_x.weight": "A",
    "att.ln_x.bias": "A",
    "?att.time_state": "H N N",
    "ffn.time_mix_k": "C",
    "ffn.time_mix_r": "C",
    "ffn.receptance.weight": "C C",
    "ffn.key.weight": "F C",
    "ffn.value.weight": "C F",
}
_GATE = {"att.time_mix_g": "C", "att.gate.weight": "A C"}
_PER_HEAD = {"att.time_decay": "H", "att.time_faaaa|att.time_first": "H"}
_PER_CHANNEL = {"att.time_decay": "H N", "att.time_faaaa|att.time_first": "H N"}

STATE = {"att_shift": "C", "wkv": "H N N", "ffn_shift": "C"}

ARCHS = {
    "v5.0": Arch("v5.0", "RWKV-5.0", {**_COMMON, **_PER_HEAD}, STATE, {}),
    "v5.1": Arch("v5.1", "RWKV-5.1", {**_COMMON, **_GATE, **_PER_HEAD}, STATE, {}),
    "v5.2": Arch("v5.2", 'RWKV-5 "Eagle"', {**_COMMON, **_GATE, **_PER_CHANNEL}, STATE, {}),
}


def prepare(p: Any) -> None:
    """Derive, once, the decay (H, N) or (H, 1) and the bonus of the current token, of the same
    shape.

    A bonus stored as `time_first` is a logarithm; one stored as `time_faaaa` is itself.
    """
    decay = p.att_time_decay
    p.att_w = (-decay.exp()).exp().reshape(decay.shape[0], -1)
    bonus = p.att_time_faaaa if hasattr(p, "att_time_faaaa") else p.att_time_first.exp()
    p.att_u = bonus.reshape(decay.shape[0], -1)


def time_mix(
    p: Any, x: torch.Tensor, state: Any, first: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mix (B, T, C) over time; advances the layer's state in place."""
    previous = ops.token_shift(x, state.att_shift)
    heads = state.wkv.shape[1]

    def split(y: torch.Tensor) -> torch.Tensor:
        return ops.split_heads(y, heads)

    r = split(ops.linear(lerp(previous, x, p.att_time_mix_r), p.att_receptance))  # eq. 4
    k = split(ops.linear(lerp(previous, x, p.att_time_mix_k), p.att_key))
    v = split(ops.linear(lerp(previous, x, p.att_time_mix_v), p.att_value))
    y = ops.wkv6(r, p.att_w, k, v, p.att_u, state.wkv)  # eq. 6 to 9
    y = ops.group_norm(y, p.att_ln_x, p.att_ln_x_bias, GROUP_NORM_EPS)  # eq. 5
    if hasattr(p, "att_gate"):
        y = y * ops.silu(ops.linear(lerp(previous, x, p.att_time_mix_g), p.att_gate))
    return ops.linear(y, p.att_output), first
