"""RWKV-4 "Dove" (Peng et al. 2023, arXiv:2305.13048v2). Equation numbers refer to that paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rwkv_cli import ops
from rwkv_cli.arch.spec import LAYER_NORMS, Arch

if TYPE_CHECKING:
    import torch

PARAMS = {
    **LAYER_NORMS,
    "att.time_mix_k": "C",
    "att.time_mix_v": "C",
    "att.time_mix_r": "C",
    "att.time_decay": "A",
    "att.time_first": "A",
    "att.receptance.weight": "A C",
    "att.key.weight": "A C",
    "att.value.weight": "A C",
    "att.output.weight": "C A",
    "ffn.time_mix_k": "C",
    "ffn.time_mix_r": "C",
    "ffn.receptance.weight": "C C",
    "ffn.key.weight": "F C",
    "ffn.value.weight": "C F",
}

# The weighted average is kept as numerator and denominator, both divided by exp(exponent).
STATE = {"att_shift": "C", "numerator": "A", "denominator": "A", "exponent": "A", "ffn_shift": "C"}

ARCHS = {"v4": Arch("v4", 'RWKV-4 "Dove"', PARAMS, STATE, {"exponent": -1e30})}


def prepare(p: Any) -> None:
    """Derive, once, what every step needs: the decay's logarithm -exp(time_decay)."""
    p.att_log_w = -p.att_time_decay.exp()


def time_mix(
    p: Any, x: torch.Tensor, state: Any, first: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mix (B, T, C) over time; advances the layer's state in place."""
    previous = ops.token_shift(x, state.att_shift)
    r = ops.linear(lerp(previous, x, p.att_time_mix_r), p.att_receptance)  # eq. 11
    k = ops.linear(lerp(previous, x, p.att_time_mix_k), p.att_key)  # eq. 12
    v = ops.linear(lerp(previous, x, p.att_time_mix_v), p.att_value)  # eq. 13
    sums = (state.numerator, state.denominator, state.exponent)
    y = ops.wkv4(p.att_log_w, p.att_time_first, k, v, sums)  # eq. 16
    return ops.linear(r.sigmoid() * y, p.att_output), first  # eq. 17


def channel_mix(p: Any, x: torch.Tensor, state: Any) -> torch.Tensor:
    """Mix the channels of (B, T, C); advances the layer's state in place."""
    previous = ops.token_shift(x, state.ffn_shift)
    r = ops.linear(lerp(previous, x, p.ffn_time_mix_r), p.ffn_receptance)  # eq. 14
    k = ops.linear(lerp(previous, x, p.ffn_time_mix_k), p.ffn_key)  # eq. 15
    return r.sigmoid() * ops.linear(ops.squared_relu(k), p.ffn_value)  # eq. 18


def lerp(previous: torch.Tensor, x: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """Take `mix` of the present input and the rest of the previous one, per channel."""
    return x * mix + previous * (1 - mix)
