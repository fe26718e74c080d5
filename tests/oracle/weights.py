"""Random models of every version under BlinkDL's names, at any shape, with values in the range of
trained ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """Sizes of a random model."""

    layers: int
    heads: int
    size: int
    ffn: int
    vocab: int
    rank: int = 8

    @property
    def width(self) -> int:
        return self.heads * self.size


# An odd head count, vocabularies that are no multiple of 64, low ranks that are no multiple of 32.
SHAPES = {
    "odd": Shape(layers=3, heads=3, size=64, ffn=672, vocab=321, rank=24),
    "deep": Shape(layers=5, heads=2, size=64, ffn=448, vocab=1000, rank=40),
    "flat": Shape(layers=2, heads=5, size=64, ffn=1120, vocab=77, rank=7),
}

Tensors = dict[str, np.ndarray]


def random_model(version: str, shape: Shape, seed: int = 0) -> Tensors:
    """Draw the float32 tensors of a model."""
    rng = np.random.default_rng(seed)
    c, v = shape.width, shape.vocab
    tensors: Tensors = {"emb.weight": rng.normal(0, 0.5, (v, c))}
    _norm(tensors, rng, "blocks.0.ln0", c)
    for layer in range(shape.layers):
        b = f"blocks.{layer}."
        _norm(tensors, rng, b + "ln1", c)
        _norm(tensors, rng, b + "ln2", c)
        for name, value in _LAYERS[version](rng, shape, layer).items():
            tensors[b + name] = value
    _norm(tensors, rng, "ln_out", c)
    tensors["head.weight"] = rng.normal(0, 1 / np.sqrt(c), (v, c))
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def tuned_state(shape: Shape, seed: int = 0) -> Tensors:
    """Draw a starting state as tuning leaves it in a model of version 5 to 7."""
    rng = np.random.default_rng(seed)
    size = (shape.heads, shape.size, shape.size)
    names = [f"blocks.{layer}.att.time_state" for layer in range(shape.layers)]
    return {name: rng.normal(0, 1, size).astype(np.float32) for name in names}


def _norm(tensors: Tensors, rng: np.random.Generator, name: str, width: int) -> None:
    tensors[name + ".weight"] = 1 + rng.normal(0, 0.2, width)
    tensors[name + ".bias"] = rng.normal(0, 0.1, width)


def _matrix(rng: np.random.Generator, out: int, inner: int) -> np.ndarray:
    return rng.normal(0, 1 / np.sqrt(inner), (out, inner))


def _mix(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.uniform(0, 1, (1, 1, width))


def _old_ffn(rng: np.random.Generator, s: Shape, mix: str) -> Tensors:
    c = s.width
    return {
        f"ffn.{mix}_k": _mix(rng, c),
        f"ffn.{mix}_r": _mix(rng, c),
        "ffn.key.weight": _matrix(rng, s.ffn, c),
        "ffn.receptance.weight": _matrix(rng, c, c),
        "ffn.value.weight": _matrix(rng, c, s.ffn),
    }


def _projections(rng: np.random.Generator, c: int, names: str) -> Tensors:
    return {f"att.{name}.weight": _matrix(rng, c, c) for name in names.split()}


def _v4(rng: np.random.Generator, s: Shape, layer: int) -> Tensors:
    c = s.width
    return {
        "att.time_decay": rng.uniform(-5, 2, c),
        "att.time_first": rng.normal(-1, 1, c),
        **{f"att.time_mix_{x}": _mix(rng, c) for x in "kvr"},
        **_projections(rng, c, "key value receptance output"),
        **_old_ffn(rng, s, "time_mix"),
    }


def _v5(rng: np.random.Generator, s: Shape, decay: tuple[int, ...], gate: bool) -> Tensors:
    c = s.width
    first = "time_faaaa" if len(decay) == 2 and decay[1] > 1 else "time_first"
    gated = {"att.time_mix_g": _mix(rng, c), "att.gate.weight": _matrix(rng, c, c)} if gate else {}
    return {
        "att.time_decay": rng.uniform(-6, 1, decay),
        f"att.{first}": rng.normal(0, 0.5, decay),
        **{f"att.time_mix_{x}": _mix(rng, c) for x in "kvr"},
        **_projections(rng, c, "key value receptance output"),
        **gated,
        "att.ln_x.weight": 1 + rng.normal(0, 0.2, c),
        "att.ln_x.bias": rng.normal(0, 0.1, c),
        **_old_ffn(rng, s, "time_mix"),
    }


def _v6(rng: np.random.Generator, s: Shape, layer: int) -> Tensors:
    c, d = s.width, s.rank
    return {
        **{f"att.time_maa_{x}": _mix(rng, c) for x in "xwkvrg"},
        "att.time_maa_w1": rng.normal(0, 0.1, (c, 5 * d)),
        "att.time_maa_w2": rng.normal(0, 0.1, (5, d, c)),
        "att.time_decay": rng.uniform(-6, 1, (1, 1, c)),
        "att.time_decay_w1": rng.normal(0, 0.1, (c, d)),
        "att.time_decay_w2": rng.normal(0, 0.1, (d, c)),
        "att.time_faaaa": rng.normal(0, 0.5, (s.heads, s.size)),
        **_projections(rng, c, "receptance key value output gate"),
        "att.ln_x.weight": 1 + rng.normal(0, 0.2, c),
        "att.ln_x.bias": rng.normal(0, 0.1, c),
        **_old_ffn(rng, s, "time_maa"),
    }


def _v7(rng: np.random.Generator, s: Shape, layer: int) -> Tensors:
    c, d = s.width, s.rank
    low: Tensors = {}
    for name, rank, center in (
        ("w", d, -2.0),
        ("a", d + 1, 0.0),
        ("v", d + 2, 0.5),
        ("g", d + 3, 0),
    ):
        if name != "g":
            low[f"att.{name}0"] = rng.normal(center, 1, (1, 1, c))
        low[f"att.{name}1"] = rng.normal(0, 0.1, (c, rank))
        low[f"att.{name}2"] = rng.normal(0, 0.3, (rank, c))
    return {
        **{f"att.x_{x}": _mix(rng, c) for x in "rwkvag"},
        **low,
        "att.k_k": rng.normal(0.85, 0.1, (1, 1, c)),
        "att.k_a": rng.normal(1, 0.1, (1, 1, c)),
        "att.r_k": rng.normal(0, 0.1, (s.heads, s.size)),
        **_projections(rng, c, "receptance key value output"),
        "att.ln_x.weight": 1 + rng.normal(0, 0.2, c),
        "att.ln_x.bias": rng.normal(0, 0.1, c),
        "ffn.x_k": _mix(rng, c),
        "ffn.key.weight": _matrix(rng, s.ffn, c),
        "ffn.value.weight": _matrix(rng, c, s.ffn),
    }


_LAYERS = {
    "v4": _v4,
    "v5.0": lambda rng, s, layer: _v5(rng, s, (s.heads,), gate=False),
    "v5.1": lambda rng, s, layer: _v5(rng, s, (s.heads, 1), gate=True),
    "v5.2": lambda rng, s, layer: _v5(rng, s, (s.heads, s.size), gate=True),
    "v6": _v6,
    "v7": _v7,
}

VERSIONS = list(_LAYERS)
