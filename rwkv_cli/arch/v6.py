"""RWKV-6 "Finch" (Peng et al. 2024, arXiv:2404.05892v4). Equation numbers refer to that paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rwkv_cli import ops
from rwkv_cli.arch.spec import LAYER_NORMS, Arch
from rwkv_cli.arch.v5 import GROUP_NORM_EPS, STATE

if TYPE_CHECKING:
    import torch

PARAMS = {
    **LAYER_NORMS,
    "att.time_maa_x": "C",
    "att.time_maa_w": "C",
    "att.time_maa_k": "C",
    "att.time_maa_v": "C",
    "att.time_maa_r": "C",
    "att.time_maa_g": "C",
    "att.time_maa_w1": "C M",  # five low ranks side by side
    "att.time_maa_w2": "5 Dm C",
    "att.time_decay": "A",
    "att.time_decay_w1": "C Dw",
    "att.time_decay_w2": "Dw A",
    "att.time_faaaa|att.time_first": "H N",
    "att.receptance.weight": "A C",
    "att.key.weight": "A C",
    "att.value.weight": "A C",
    "att.gate.weight": "A C",
    "att.output.weight": "C A",
    "att.ln_x.weight": "A",
    "att.ln_x.bias": "A",
    "?att.time_state": "H N N",
    "ffn.time_maa_k": "C",
    "ffn.time_maa_r": "C",
    "ffn.receptance.weight": "C C",
    "ffn.key.weight": "F C",
    "ffn.value.weight": "C F",
}

ARCHS = {"v6": Arch("v6", 'RWKV-6 "Finch"', PARAMS, STATE, {})}


def prepare(p: Any) -> None:
    """Derive, once, the bonus of the current token (H, N); `time_first` stores its logarithm."""
    p.att_u = p.att_time_faaaa if hasattr(p, "att_time_faaaa") else p.att_time_first.exp()


def time_mix(
    p: Any, x: torch.Tensor, state: Any, first: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mix (B, T, C) over time; advances the layer's state in place."""
    delta = ops.token_shift(x, state.att_shift) - x
    mix = ops.project(x + delta * p.att_time_maa_x, p.att_time_maa_w1).tanh()  # eq. 14
    low = ops.split_heads(mix, 5).unbind(-2)
    mw, mk, mv, mr, mg = (ops.project(m, w2) for m, w2 in zip(low, p.att_time_maa_w2, strict=True))
    heads = state.wkv.shape[1]

    def split(y: torch.Tensor) -> torch.Tensor:
        return ops.split_heads(y, heads)

    xw = x + delta * (p.att_time_maa_w + mw)  # eq. 15
    low_w = ops.project(xw, p.att_time_decay_w1).tanh()
    w = (-(p.att_time_decay + ops.project(low_w, p.att_time_decay_w2)).exp()).exp()  # eq. 16
    r = split(ops.linear(x + delta * (p.att_time_maa_r + mr), p.att_receptance))
    k = split(ops.linear(x + delta * (p.att_time_maa_k + mk), p.att_key))
    v = split(ops.linear(x + delta * (p.att_time_maa_v + mv), p.att_value))
    g = ops.silu(ops.linear(x + delta * (p.att_time_maa_g + mg), p.att_gate))
    y = ops.wkv6(r, split(w), k, v, p.att_u, state.wkv)  # eq. 17 to 19
    y = ops.group_norm(y, p.att_ln_x, p.att_ln_x_bias, GROUP_NORM_EPS)
    return ops.linear(y * g, p.att_output), first


def channel_mix(p: Any, x: torch.Tensor, state: Any) -> torch.Tensor:
    """Mix the channels of (B, T, C); advances the layer's state in place."""
    delta = ops.token_shift(x, state.ffn_shift) - x
    r = ops.linear(x + delta * p.ffn_time_maa_r, p.ffn_receptance)
    k = ops.linear(x + delta * p.ffn_time_maa_k, p.ffn_key)
    return r.sigmoid() * ops.linear(ops.squared_relu(k), p.ffn_value)
