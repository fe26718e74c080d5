"""RWKV-4 by kernels; the formulas are those of `arch/v4.py`."""

from __future__ import annotations

from rwkv_cli.engine.cuda.decode import Decode, Role
from rwkv_cli.engine.cuda.program import constant
from rwkv_cli.engine.cuda.rows import Rows
from rwkv_cli.engine.cuda.weights import Weights


def prepare(weights: Weights) -> None:
    """Derive, once, what kernels read: mixes toward the token before, and the decay's logarithm."""
    turn_mixes(weights)
    for layer in range(weights.dims.layers):
        att = f"blocks.{layer}.att."
        weights.vectors[att + "log_w"] = -weights.vectors[att + "time_decay"].exp()


def turn_mixes(weights: Weights) -> None:
    """RWKV-4 and 5 store the share of the present; kernels take that of the token before."""
    for name, mix in list(weights.vectors.items()):
        if ".time_mix_" in name:
            weights.vectors[name.replace("time_mix_", "toward_")] = 1 - mix


def decode_layer(d: Decode, layer: int) -> None:
    """Add a layer's four kernels: the average over time is part of the output matrix's."""
    matrices, vectors = d.weights.matrices, d.weights.vectors
    att, width = f"blocks.{layer}.att.", d.dims.letters["A"]
    r, k, v = (d.buffer(name, width) for name in "rkv")
    roles = [
        Role(matrices[att + "receptance.weight"], r, vectors[att + "toward_r"]),
        Role(matrices[att + "key.weight"], k, vectors[att + "toward_k"]),
        Role(matrices[att + "value.weight"], v, vectors[att + "toward_v"]),
    ]
    d.multiply(d.normed(layer, "ln1", "att_shift"), roles)
    sums = {name: d.states(name, layer) for name in ("numerator", "denominator", "exponent")}
    average = d.program.struct(
        "Average",
        r=r,
        k=k,
        v=v,
        log_w=vectors[att + "log_w"],
        u=vectors[att + "time_first"],
        **sums,
    )
    source = d.program.struct("Source", average=average, cols=width, commit=1)
    d.multiply(source, [Role(matrices[att + "output.weight"], d.x, add=True)])
    d.gated_channel_mix(
        layer, {letter: vectors[f"blocks.{layer}.ffn.toward_{letter}"] for letter in "kr"}
    )


def rows_layer(r: Rows, layer: int) -> None:
    """Add a layer for many tokens."""
    vectors = r.weights.vectors
    att, width = f"blocks.{layer}.att.", r.dims.letters["A"]
    planes = r.mix(layer, "ln1", "att_shift", [vectors[f"{att}toward_{x}"] for x in "rkv"])
    receptance, key, value = (
        r.dense(plane, f"{att}{name}.weight", name)
        for plane, name in zip(planes, ("receptance", "key", "value"), strict=True)
    )
    plane, threads = r.plane("average", width), constant("kScan4Threads")
    r.program.kernel(
        "scan4",
        "Scan4Arguments",
        (-(-width // threads), r.sequences, 1),
        threads,
        0,
        r=receptance,
        k=key,
        v=value,
        log_w=vectors[att + "log_w"],
        u=vectors[att + "time_first"],
        plane=plane,
        state=r.states("numerator", layer),
        denominator=r.layout.at("denominator", layer),
        exponent=r.layout.at("exponent", layer),
        starts=r.starts,
        width=width,
        plane_type=r.type,
    )
    r.pend(r.dense(plane, att + "output.weight", "add"))
    r.channel_mix(layer, {x: vectors[f"blocks.{layer}.ffn.toward_{x}"] for x in "kr"})
