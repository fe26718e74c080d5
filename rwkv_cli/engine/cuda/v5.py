"""RWKV-5.0 to 5.2 by kernels; the formulas are those of `arch/v5.py`."""

from __future__ import annotations

from typing import Any

from rwkv_cli.engine.cuda.decode import SILU, Decode, Role
from rwkv_cli.engine.cuda.rows import Rows
from rwkv_cli.engine.cuda.v4 import turn_mixes
from rwkv_cli.engine.cuda.weights import Weights


def prepare(weights: Weights) -> None:
    """Derive, once, what kernels read: mixes toward the token before, and the decay and the bonus
    for every channel.
    """
    turn_mixes(weights)
    size = weights.dims.letters["N"]
    for layer in range(weights.dims.layers):
        att = f"blocks.{layer}.att."
        decay = (-weights.vectors[att + "time_decay"].exp()).exp()
        if len(decay) == weights.dims.letters["H"]:  # one for each head
            decay = decay.repeat_interleave(size)
        weights.vectors[att + "decay"] = decay
        add_bonus(weights, layer)


def add_bonus(weights: Weights, layer: int) -> None:
    """Derive the bonus of the current token for every channel."""
    att, vectors = f"blocks.{layer}.att.", weights.vectors
    bonus = vectors.get(att + "time_faaaa")
    if bonus is None:
        bonus = vectors[att + "time_first"].exp()
    if len(bonus) == weights.dims.letters["H"]:
        bonus = bonus.repeat_interleave(weights.dims.letters["N"])
    vectors[att + "bonus"] = bonus


def decode_layer(d: Decode, layer: int) -> None:
    """Add a layer's five kernels."""
    matrices, vectors = d.weights.matrices, d.weights.vectors
    att, width = f"blocks.{layer}.att.", d.dims.letters["A"]
    r, k, v = (d.buffer(name, width) for name in "rkv")
    roles = [
        Role(matrices[att + "receptance.weight"], r, vectors[att + "toward_r"]),
        Role(matrices[att + "key.weight"], k, vectors[att + "toward_k"]),
        Role(matrices[att + "value.weight"], v, vectors[att + "toward_v"]),
    ]
    gate = matrices.get(att + "gate.weight")
    g = d.buffer("g", width) if gate else None
    if gate and g is not None:
        roles.append(Role(gate, g, vectors[att + "toward_g"], activation=SILU))
    d.multiply(d.normed(layer, "ln1", "att_shift"), roles)
    add_heads(d, layer, r=r, k=k, v=v, gate=g, decay=vectors[att + "decay"])
    d.gated_channel_mix(
        layer, {letter: vectors[f"blocks.{layer}.ffn.toward_{letter}"] for letter in "kr"}
    )


def add_heads(d: Decode, layer: int, **fields: Any) -> None:
    """Add the kernel of the heads of RWKV-5 and 6, and the output matrix.

    Args:
        d: The program.
        layer: The layer.
        fields: Arguments of the kernel that differ: r, k, v, gate, decay, raise_decay.
    """
    vectors, att = d.weights.vectors, f"blocks.{layer}.att."
    y = d.buffer("y", d.dims.letters["A"])
    d.heads(
        "head6",
        "Head6Arguments",
        scratch=1,
        vectors=4,
        u=vectors[att + "bonus"],
        norm_weight=vectors[att + "ln_x.weight"],
        norm_bias=vectors[att + "ln_x.bias"],
        y=y,
        wkv=d.states("wkv", layer),
        **fields,
    )
    output = d.weights.matrices[att + "output.weight"]
    d.multiply(d.plain(y), [Role(output, d.x, add=True)])


def rows_layer(r: Rows, layer: int) -> None:
    """Add a layer for many tokens."""
    vectors = r.weights.vectors
    att = f"blocks.{layer}.att."
    letters = "rkvg" if att + "gate.weight" in r.weights.matrices else "rkv"
    planes = r.mix(layer, "ln1", "att_shift", [vectors[f"{att}toward_{x}"] for x in letters])
    mixed = dict(zip(letters, planes, strict=True))
    receptance = r.dense(mixed["r"], att + "receptance.weight", "r")
    key = r.dense(mixed["k"], att + "key.weight", "k")
    value = r.dense(mixed["v"], att + "value.weight", "v")
    gate = r.dense(mixed["g"], att + "gate.weight", "g") if "g" in mixed else None
    y = r.scan(
        "scan6",
        "Scan6Arguments",
        operands=3,
        r=receptance,
        k=key,
        v=value,
        decay=vectors[att + "decay"],
        u=vectors[att + "bonus"],
        state=r.states("wkv", layer),
    )
    r.finish_heads(layer, y, gate, SILU)
    r.channel_mix(layer, {x: vectors[f"blocks.{layer}.ffn.toward_{x}"] for x in "kr"})
