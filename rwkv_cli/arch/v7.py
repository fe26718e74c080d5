"""RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456v2). Equation numbers refer to that paper."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Any

from rwkv_cli import ops
from rwkv_cli.arch.spec import LAYER_NORMS, Arch
from rwkv_cli.arch.v5 import GROUP_NORM_EPS, STATE

if TYPE_CHECKING:
    import torch

PARAMS = {
    **LAYER_NORMS,
    "att.x_r": "C",
    "att.x_w": "C",
    "att.x_k": "C",
    "att.x_v": "C",
    "att.x_a": "C",
    "att.x_g": "C",
    "att.w0": "C",  # decay
    "att.w1": "C Dw",
    "att.w2": "Dw C",
    "att.a0": "C",  # in-context learning rate
    "att.a1": "C Da",
    "att.a2": "Da C",
    "?att.v0": "C",  # value residual; layer 0 has none
    "?att.v1": "C Dv",
    "?att.v2": "Dv C",
    "att.g1": "C Dg",  # gate
    "att.g2": "Dg C",
    "att.k_k": "C",
    "att.k_a": "C",
    "att.r_k": "H N",
    "att.receptance.weight": "C C",
    "att.key.weight": "C C",
    "att.value.weight": "C C",
    "att.output.weight": "C C",
    "att.ln_x.weight": "C",
    "att.ln_x.bias": "C",
    "?att.time_state": "H N N",
    "ffn.x_k": "C",
    "ffn.key.weight": "F C",
    "ffn.value.weight": "C F",
}

ARCHS = {"v7": Arch("v7", 'RWKV-7 "Goose"', PARAMS, STATE, {})}

DECAY_SCALE = -exp(-0.5)  # eq. 5; the reference rounds it to -0.606531, which moves a decay by 2e-7


def prepare(p: Any) -> None:
    """Nothing to derive: every parameter is used as it is stored."""


def time_mix(
    p: Any, x: torch.Tensor, state: Any, first: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mix (B, T, C) over time; advances the layer's state in place and hands on the first layer's
    values.
    """
    delta = ops.token_shift(x, state.att_shift) - x
    xr, xw, xk, xv, xa, xg = (
        x + delta * m for m in (p.att_x_r, p.att_x_w, p.att_x_k, p.att_x_v, p.att_x_a, p.att_x_g)
    )  # eq. 3
    heads = state.wkv.shape[1]

    def split(y: torch.Tensor) -> torch.Tensor:
        return ops.split_heads(y, heads)

    r = split(ops.linear(xr, p.att_receptance))
    low_w = ops.project(xw, p.att_w1).tanh()
    log_w = split(DECAY_SCALE * (p.att_w0 + ops.project(low_w, p.att_w2)).sigmoid())  # eq. 5
    a = (p.att_a0 + ops.project(ops.project(xa, p.att_a1), p.att_a2)).sigmoid()  # eq. 4
    g = ops.project(ops.project(xg, p.att_g1).sigmoid(), p.att_g2)
    k = ops.linear(xk, p.att_key)
    v = ops.linear(xv, p.att_value)
    removal = ops.normalize(split(k * p.att_k_k))  # eq. 6
    k = split(k * (1 + (a - 1) * p.att_k_a))  # eq. 7
    if first is None:
        first = v
    else:
        share = p.att_v0 + ops.project(ops.project(xv, p.att_v1), p.att_v2)
        v = v + (first - v) * share.sigmoid()  # eq. 8
    v = split(v)
    y = ops.wkv7(r, log_w, k, v, -removal, removal * split(a), state.wkv)  # eq. 17
    y = ops.group_norm(y, p.att_ln_x, p.att_ln_x_bias, GROUP_NORM_EPS)
    bonus = ((r * k * p.att_r_k).sum(-1, keepdim=True) * v).flatten(-2)  # eq. 20
    return ops.linear((y + bonus) * g, p.att_output), first


def channel_mix(p: Any, x: torch.Tensor, state: Any) -> torch.Tensor:
    """Mix the channels of (B, T, C); advances the layer's state in place."""
    delta = ops.token_shift(x, state.ffn_shift) - x
    k = ops.linear(x + delta * p.ffn_x_k, p.ffn_key)
    return ops.linear(ops.squared_relu(k), p.ffn_value)  # eq. 22
