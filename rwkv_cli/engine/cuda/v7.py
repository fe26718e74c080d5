"""RWKV-7 by kernels; the formulas are those of `arch/v7.py`."""

from __future__ import annotations

from typing import Any

from rwkv_cli.engine.cuda.decode import NONE, SIGMOID, SQUARED_RELU, TANH, Decode, Role
from rwkv_cli.engine.cuda.rows import Rows
from rwkv_cli.engine.cuda.weights import Matrix, Weights

_LOW = {"w": TANH, "a": NONE, "v": NONE, "g": SIGMOID}  # activations between low-rank factors


def prepare(weights: Weights) -> None:
    """Nothing to derive: every parameter is used as it is stored."""


def decode_layer(d: Decode, layer: int) -> None:
    """Add a layer's five kernels."""
    matrices, vectors = d.weights.matrices, d.weights.vectors
    att = f"blocks.{layer}.att."
    width = d.dims.width
    r, k, v, y = (d.buffer(name, width) for name in "rkvy")
    low = {
        letter: d.buffer(f"low_{letter}", matrices[f"{att}{letter}1"].rows)
        for letter in _LOW
        if f"{att}{letter}1" in matrices
    }
    mix = {letter: vectors[f"{att}x_{letter}"] for letter in "rwkvag"}
    roles = [
        Role(matrices[att + "receptance.weight"], r, mix["r"]),
        Role(matrices[att + "key.weight"], k, mix["k"]),
        Role(matrices[att + "value.weight"], v, mix["v"]),
    ]
    for letter, out in low.items():
        down = matrices[f"{att}{letter}1"]
        roles.append(Role(down, out, mix[letter], activation=_LOW[letter]))
    d.multiply(d.normed(layer, "ln1", "att_shift"), roles)
    ups = [d.low_rank(matrices.get(f"{att}{letter}2"), low.get(letter)) for letter in _LOW]
    d.heads(
        "head7",
        "Head7Arguments",
        scratch=4,
        vectors=11,
        r=r,
        k=k,
        v=v,
        first=d.buffer("first", width),
        y=y,
        up=ups,
        wkv=d.states("wkv", layer),
        **head_vectors(d.weights, layer),
    )
    d.multiply(d.plain(y), [Role(matrices[att + "output.weight"], d.x, add=True)])
    value: Matrix = matrices[f"blocks.{layer}.ffn.value.weight"]
    hidden = d.buffer("hidden", value.cols)
    key, mix_k = matrices[f"blocks.{layer}.ffn.key.weight"], vectors[f"blocks.{layer}.ffn.x_k"]
    key_role = Role(key, hidden, mix_k, activation=SQUARED_RELU)
    d.multiply(d.normed(layer, "ln2", "ffn_shift"), [key_role])
    d.value(value, hidden)


def rows_layer(r: Rows, layer: int) -> None:
    """Add a layer for many tokens."""
    vectors = r.weights.vectors
    att, width = f"blocks.{layer}.att.", r.dims.width
    planes = r.mix(layer, "ln1", "att_shift", [vectors[f"{att}x_{letter}"] for letter in "rwkvag"])
    mixed = dict(zip("rwkvag", planes, strict=True))
    receptance = r.dense(mixed["r"], att + "receptance.weight", "r")
    key = r.dense(mixed["k"], att + "key.weight", "k")
    value = r.dense(mixed["v"], att + "value.weight", "v")
    letters = [letter for letter in _LOW if f"{att}{letter}1" in r.weights.matrices]
    lows = [(r.dense(mixed[x], f"{att}{x}1", f"low_{x}"), _LOW[x]) for x in letters]
    raised = {
        letter: r.dense(low, f"{att}{letter}2", f"up_{letter}")
        for letter, low in zip(
            letters, r.activate(lows, [f"low_{x}" for x in letters]), strict=True
        )
    }
    vectors_of_heads = head_vectors(r.weights, layer)
    removal = r.buffer("removal", width)
    r.per_head(
        "rows_gates7",
        "RowsGates7Arguments",
        k=key,
        v=value,
        decay=raised["w"],
        rate=raised["a"],
        share=raised.get("v"),
        first=r.buffer("first", width),
        removal=removal,
        **{name: vectors_of_heads[name] for name in ("w0", "a0", "v0", "k_k", "k_a")},
    )
    y = r.scan(
        "scan7",
        "Scan7Arguments",
        operands=5,
        r=receptance,
        w=raised["w"],
        k=key,
        v=value,
        removal=removal,
        replacement=raised["a"],
        state=r.states("wkv", layer),
    )
    bonus = {"r_k": vectors[att + "r_k"], "r": receptance, "k": key, "v": value}
    r.finish_heads(layer, y, raised["g"], bonus=bonus)
    r.channel_mix(layer, {"k": vectors[f"blocks.{layer}.ffn.x_k"]})


def head_vectors(weights: Weights, layer: int) -> dict[str, Any]:
    """Name the vectors of a layer's heads as kernels call them; the first layer has no v0."""
    att = f"blocks.{layer}.att."
    found = {name: weights.vectors.get(att + name) for name in ("w0", "a0", "k_k", "k_a", "r_k")}
    return {
        **found,
        "v0": weights.vectors.get(att + "v0") if layer else None,
        "norm_weight": weights.vectors[att + "ln_x.weight"],
        "norm_bias": weights.vectors[att + "ln_x.bias"],
    }
