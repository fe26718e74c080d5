"""RWKV-6 by kernels; the formulas are those of `arch/v6.py`."""

from __future__ import annotations

from rwkv_cli.engine.cuda.decode import SILU, TANH, Decode, Role
from rwkv_cli.engine.cuda.rows import Rows
from rwkv_cli.engine.cuda.v5 import add_bonus, add_heads
from rwkv_cli.engine.cuda.weights import Matrix, Weights

_MIXES = "wkvrg"  # their order in time_maa_w1 and w2


def prepare(weights: Weights) -> None:
    """Derive, once, the bonus of the current token; `time_first` stores its logarithm."""
    for layer in range(weights.dims.layers):
        add_bonus(weights, layer)


def decode_layer(d: Decode, layer: int) -> None:
    """Add a layer's seven kernels."""
    matrices, vectors = d.weights.matrices, d.weights.vectors
    att, width = f"blocks.{layer}.att.", d.dims.letters["A"]
    down, up = matrices[att + "time_maa_w1"], matrices[att + "time_maa_w2"]
    low = d.buffer("low_mix", down.rows)
    source = d.normed(layer, "ln1", "att_shift")
    d.multiply(source, [Role(down, low, vectors[att + "time_maa_x"], activation=TANH)])
    mixed = d.program.buffer("mixed", (len(_MIXES), d.sequences, d.dims.width))
    d.mix6(layer, up, low, mixed, [vectors[f"{att}time_maa_{letter}"] for letter in _MIXES])
    inputs = dict(zip(_MIXES, mixed, strict=True))
    r, k, v, g = (d.buffer(name, width) for name in "rkvg")
    down_decay = matrices[att + "time_decay_w1"]
    low_decay = d.buffer("low_decay", down_decay.rows)
    roles = [
        Role(matrices[att + "receptance.weight"], r, inputs=inputs["r"]),
        Role(matrices[att + "key.weight"], k, inputs=inputs["k"]),
        Role(matrices[att + "value.weight"], v, inputs=inputs["v"]),
        Role(matrices[att + "gate.weight"], g, inputs=inputs["g"], activation=SILU),
        Role(down_decay, low_decay, inputs=inputs["w"], activation=TANH),
    ]
    d.multiply(d.plain(inputs["w"]), roles)
    raised = d.low_rank(matrices[att + "time_decay_w2"], low_decay)
    decay = vectors[att + "time_decay"]
    add_heads(d, layer, r=r, k=k, v=v, gate=g, decay=decay, raise_decay=raised)
    mixes = {letter: vectors[f"blocks.{layer}.ffn.time_maa_{letter}"] for letter in "kr"}
    d.gated_channel_mix(layer, mixes)


def rows_layer(r: Rows, layer: int) -> None:
    """Add a layer for many tokens."""
    vectors, matrices = r.weights.vectors, r.weights.matrices
    att = f"blocks.{layer}.att."
    shift = ("ln1", "att_shift")
    (inputs,) = r.mix(layer, *shift, [vectors[att + "time_maa_x"]], commit=False)
    low = r.dense(inputs, att + "time_maa_w1", "low_mix")
    parts = [(part, TANH) for part in low.chunk(len(_MIXES), dim=1)]
    planes = r.activate(parts, [f"low_{letter}" for letter in _MIXES])
    up = matrices[att + "time_maa_w2"]
    factors = [Matrix(f, up.type, up.rows, len(f), True) for f in up.data.chunk(len(_MIXES))]
    more = [
        r.multiply(plane, factor, f"more_{letter}")
        for plane, factor, letter in zip(planes, factors, _MIXES, strict=True)
    ]
    mixes = [vectors[f"{att}time_maa_{letter}"] for letter in _MIXES]
    mixed = dict(zip(_MIXES, r.mix(layer, *shift, mixes, more), strict=True))
    receptance = r.dense(mixed["r"], att + "receptance.weight", "r")
    key = r.dense(mixed["k"], att + "key.weight", "k")
    value = r.dense(mixed["v"], att + "value.weight", "v")
    gate = r.dense(mixed["g"], att + "gate.weight", "g")
    low_decay = r.dense(mixed["w"], att + "time_decay_w1", "low_decay")
    (plane,) = r.activate([(low_decay, TANH)], ["low_decay"])
    y = r.scan(
        "scan6",
        "Scan6Arguments",
        operands=3,
        r=receptance,
        k=key,
        v=value,
        product=r.dense(plane, att + "time_decay_w2", "decay"),
        decay=vectors[att + "time_decay"],
        u=vectors[att + "bonus"],
        state=r.states("wkv", layer),
    )
    r.finish_heads(layer, y, gate, SILU)
    ffn = {letter: vectors[f"blocks.{layer}.ffn.time_maa_{letter}"] for letter in "kr"}
    r.channel_mix(layer, ffn)
