"""A fresh RWKV-7 for training: parameters under BlinkDL's names, run by the tool's own formulas."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from rwkv_cli.arch import v7
from rwkv_cli.arch.spec import GLOBAL_PARAMS, Dims
from rwkv_cli.arch.stack import Stack
from rwkv_cli.engine.torch_weights import attribute

Params = dict[str, torch.nn.Parameter]

HEAD_SIZE = 64


def dims(*, vocab: int, layers: int, heads: int) -> Dims:
    """Choose the sizes of the demo: a channel-mixing four times as wide, and small low ranks."""
    width = heads * HEAD_SIZE
    letters = {"C": width, "A": width, "H": heads, "N": HEAD_SIZE, "F": 4 * width, "V": vocab}
    ranks = {"Dw": 16, "Da": 16, "Dv": 16, "Dg": 32}
    return Dims(layers, width, vocab, {**letters, **ranks})


def fresh(sizes: Dims) -> Params:
    """Draw initial parameters, after the initialization of RWKV-LM's
    RWKV-v7/train_temp/src/model.py.
    """
    params = {name: _ends(name, sizes.shape(axes)) for name, axes in GLOBAL_PARAMS.items()}
    for layer in range(sizes.layers):
        for key, axes in v7.PARAMS.items():
            name = key.removeprefix("?")
            if name == "att.time_state" or (layer == 0 and name in ("att.v0", "att.v1", "att.v2")):
                continue
            params[f"blocks.{layer}.{name}"] = _layer(name, sizes.shape(axes), layer, sizes.layers)
    return {name: torch.nn.Parameter(value) for name, value in params.items()}


def build(params: Params, layers: int) -> Stack:
    """Lay the parameters out as the stack that the engine runs."""
    ends = {attribute(n.removeprefix("blocks.0.")): params[n] for n in GLOBAL_PARAMS}
    rows = [SimpleNamespace() for _ in range(layers)]
    for name, value in params.items():
        if name not in GLOBAL_PARAMS:
            _, layer, rest = name.split(".", 2)
            setattr(rows[int(layer)], attribute(rest), value)
    return Stack(ends.pop("emb"), SimpleNamespace(**ends), rows, v7.time_mix, v7.channel_mix)


def zero_states(sizes: Dims, batch: int) -> list[SimpleNamespace]:
    """Make the state of every layer before any token."""
    return [
        SimpleNamespace(**{n: torch.zeros(batch, *sizes.shape(a)) for n, a in v7.STATE.items()})
        for _ in range(sizes.layers)
    ]


def _ends(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name == "emb.weight":
        return torch.empty(shape).uniform_(-1e-2, 1e-2)
    if name == "head.weight":
        return torch.nn.init.orthogonal_(
            torch.empty(shape), gain=0.5 * (shape[0] / shape[1]) ** 0.5
        )
    return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)


def _layer(name: str, shape: tuple[int, ...], layer: int, layers: int) -> torch.Tensor:
    rising, falling = layer / max(1, layers - 1), 1 - layer / layers
    channel = torch.arange(shape[-1]) / shape[-1]
    short = name.split(".", 1)[1]
    if name.startswith("att.x_"):
        power = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}[name[-1]]
        return 1 - channel ** (power * falling)
    if name == "ffn.x_k":
        return 1 - channel ** (falling**4)
    if name == "att.w0":
        return -6.5 + 5 * channel ** (0.85 + rising**0.5)
    constants = {"a0": 0.0, "v0": 1.0, "k_k": 0.85, "k_a": 1.0, "r_k": 0.0}
    if short in constants:
        return torch.full(shape, constants[short])
    if short in ("w1", "a1", "v1", "g1", "output.weight") or name == "ffn.value.weight":
        return torch.zeros(shape)
    if short in ("w2", "a2", "v2", "g2"):
        return torch.nn.init.orthogonal_(torch.empty(shape), gain=0.1)
    if name.endswith(".weight") and len(shape) == 2:
        bound = (0.05 if name == "att.key.weight" else 0.5) / shape[1] ** 0.5
        return torch.empty(shape).uniform_(-bound, bound)
    if short == "ln_x.weight":
        return torch.full(shape, ((1 + layer) / layers) ** 0.7)
    return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
