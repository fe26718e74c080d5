"""The official shapes of RWKV models, and how a tensor of each is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

from rwkv_cli.places import cache_folder

HEAD = 64
WORLD, PILE = 65_536, 50_277


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        version: "v4", "v6" or "v7".
        zeros: Share of relu(k)^2 that is zero on random tokens.
        ranks: The low ranks of a version by their letters.
    """

    version: str
    layers: int
    width: int
    ffn: int
    vocab: int
    zeros: float
    ranks: dict[str, int] = field(default_factory=dict)


def _v7(layers: int, width: int, w: int, a: int, v: int, g: int) -> Shape:
    ranks = {"w": w, "a": a, "v": v, "g": g}
    return Shape("v7", layers, width, 4 * width, WORLD, 0.88, ranks)


# Trained RWKV-7 has 86 to 90 % zeros. Nobody published a figure for RWKV-4 and RWKV-6: theirs
# have the 50 % of a model that learned no sparsity, so that no gain is assumed there.
MODELS = {
    "v7-0.1b": _v7(12, 768, 64, 64, 32, 128),
    "v7-0.4b": _v7(24, 1024, 64, 64, 32, 128),
    "v7-1.5b": _v7(24, 2048, 96, 96, 64, 256),
    "v7-2.9b": _v7(32, 2560, 96, 96, 64, 320),
    "v6-1.6b": Shape("v6", 24, 2048, 7168, WORLD, 0.5, {"maa": 32, "w": 64}),
    "v4-169m": Shape("v4", 12, 768, 3072, PILE, 0.5),
    "v4-1.5b": Shape("v4", 24, 2048, 8192, PILE, 0.5),
}


def default_folder() -> Path:
    """Where the models of these shapes are kept."""
    return cache_folder() / "benchmarks"


@dataclass(frozen=True)
class Draw:
    """A tensor to be drawn.

    Attributes:
        spread: Standard deviation, or half the width of a uniform distribution.
        against: Name of the bias that the rows of this matrix oppose, each by another amount.
    """

    name: str
    shape: tuple[int, ...]
    mean: float = 0.0
    spread: float = 0.0
    uniform: bool = False
    against: str | None = None


def parameters(s: Shape) -> Iterator[Draw]:
    """List the tensors of a model under BlinkDL's names, in the order of its files."""
    c, v = s.width, s.vocab
    yield Draw("emb.weight", (v, c), 0, 0.5)
    for layer in range(s.layers):
        b = f"blocks.{layer}."
        for norm in ("ln0", "ln1", "ln2") if layer == 0 else ("ln1", "ln2"):
            yield from _norm(b + norm, c)
        yield from _ATTENTION[s.version](s, b + "att.")
        yield from _channel_mixing(s, b)
    yield from _norm("ln_out", c)
    # Logits of standard deviation 3.5 have an entropy of five nats: neither flat nor certain.
    yield Draw("head.weight", (v, c), 0, 3.5 / sqrt(c))


def _norm(name: str, width: int) -> Iterator[Draw]:
    yield Draw(name + ".weight", (width,), 1, 0.2)
    yield Draw(name + ".bias", (width,), 0, 0.3 if name.endswith("ln2") else 0.1)


def _mixes(prefix: str, letters: str, width: int) -> Iterator[Draw]:
    for letter in letters:
        yield Draw(f"{prefix}_{letter}", (1, 1, width), 0.5, 0.5, uniform=True)


def _matrix(name: str, out: int, inner: int, gain: float = 1.0) -> Draw:
    return Draw(name, (out, inner), 0, gain / sqrt(inner))


def _projections(prefix: str, c: int, names: str) -> Iterator[Draw]:
    for name in names.split():
        yield _matrix(f"{prefix}{name}.weight", c, c, 0.5 if name == "output" else 1)


def _channel_mixing(s: Shape, b: str) -> Iterator[Draw]:
    c, old = s.width, s.version != "v7"
    prefix = {"v4": "ffn.time_mix", "v6": "ffn.time_maa", "v7": "ffn.x"}[s.version]
    yield from _mixes(b + prefix, "kr" if old else "k", c)
    yield Draw(b + "ffn.key.weight", (s.ffn, c), 0, 1 / sqrt(c), against=b + "ln2.bias")
    if old:
        yield _matrix(b + "ffn.receptance.weight", c, c)
    yield _matrix(b + "ffn.value.weight", c, s.ffn, 0.4 if old else 0.6)


def _attention_v4(s: Shape, b: str) -> Iterator[Draw]:
    c = s.width
    yield Draw(b + "time_decay", (c,), -1.5, 3.5, uniform=True)
    yield Draw(b + "time_first", (c,), -1, 1)
    yield from _mixes(b + "time_mix", "kvr", c)
    yield from _projections(b, c, "key value receptance output")


def _attention_v6(s: Shape, b: str) -> Iterator[Draw]:
    c, maa, w = s.width, s.ranks["maa"], s.ranks["w"]
    yield from _mixes(b + "time_maa", "xwkvrg", c)
    yield Draw(b + "time_maa_w1", (c, 5 * maa), 0, 1 / sqrt(c))
    yield Draw(b + "time_maa_w2", (5, maa, c), 0, 0.3 / sqrt(maa))
    yield Draw(b + "time_decay", (1, 1, c), -2.5, 3.5, uniform=True)
    yield Draw(b + "time_decay_w1", (c, w), 0, 1 / sqrt(c))
    yield Draw(b + "time_decay_w2", (w, c), 0, 0.5 / sqrt(w))
    yield Draw(b + "time_faaaa", (c // HEAD, HEAD), 0, 0.5)
    yield from _projections(b, c, "receptance key value output gate")
    yield from _norm(b + "ln_x", c)


def _attention_v7(s: Shape, b: str) -> Iterator[Draw]:
    c = s.width
    yield from _mixes(b + "x", "rwkvag", c)
    for letter, mean in (("w", -2.0), ("a", 0.0), ("v", 0.5), ("g", 0.0)):
        if letter == "v" and b == "blocks.0.att.":
            continue  # the first layer has no values of an earlier one
        rank = s.ranks[letter]
        if letter != "g":
            yield Draw(f"{b}{letter}0", (1, 1, c), mean, 1)
        yield Draw(f"{b}{letter}1", (c, rank), 0, 1 / sqrt(c))
        yield Draw(f"{b}{letter}2", (rank, c), 0, (1.5 if letter == "g" else 0.7) / sqrt(rank))
    yield Draw(b + "k_k", (1, 1, c), 0.85, 0.1)
    yield Draw(b + "k_a", (1, 1, c), 1, 0.1)
    yield Draw(b + "r_k", (c // HEAD, HEAD), 0, 0.1)
    yield from _projections(b, c, "receptance key value output")
    yield from _norm(b + "ln_x", c)


_ATTENTION = {"v4": _attention_v4, "v6": _attention_v6, "v7": _attention_v7}
