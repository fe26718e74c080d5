"""Models of the official shapes, drawn on the card: nothing is read from a disk, and packed
matrices are packed there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from statistics import NormalDist

import torch
from shapes import HEAD, MODELS, WORLD, Draw, Shape, parameters
from synthetic import BIAS, TOKEN, VARIETY

from gpu.packing import packed_panels, packed_rows
from rwkv_cli.arch.detect import detect
from rwkv_cli.engine.cuda.weights import TYPES, Matrix, Weights, _Loader
from rwkv_cli.engine.placement import Placement, placements

SHAPES = {
    **MODELS,
    "v7-7.2b": Shape(
        "v7", 32, 4096, 16384, WORLD, 0.9, {"w": 128, "a": 128, "v": 96, "g": 480}
    ),
    "v5-1.5b": Shape("v5", 24, 2048, 7168, WORLD, 0.5),
}  # fmt: skip


def draws(shape: Shape) -> Iterator[Draw]:
    """List the tensors of a model."""
    if shape.version != "v5":
        yield from parameters(shape)
        return
    done = set()
    for draw in parameters(replace(shape, version="v4")):
        block = draw.name.rpartition("att.")[0]
        if not block or ".att." not in draw.name:
            yield draw
        elif block not in done:  # RWKV-5 differs from 4 in its time-mixing alone
            done.add(block)
            yield from _attention_v5(shape, block + "att.")


def _attention_v5(shape: Shape, prefix: str) -> Iterator[Draw]:
    c = shape.width
    for letter in "kvrg":
        yield Draw(f"{prefix}time_mix_{letter}", (1, 1, c), 0.5, 0.5, uniform=True)
    yield Draw(prefix + "time_decay", (c // HEAD, HEAD), -2.5, 3.5, uniform=True)
    yield Draw(prefix + "time_faaaa", (c // HEAD, HEAD), 0, 0.5)
    for name in ("receptance", "key", "value", "output", "gate"):
        gain = 0.5 if name == "output" else 1
        yield Draw(f"{prefix}{name}.weight", (c, c), 0, gain / sqrt(c))
    yield Draw(prefix + "ln_x.weight", (c,), 1, 0.2)
    yield Draw(prefix + "ln_x.bias", (c,), 0, 0.1)


def tensors(shape: Shape, place: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
    """Draw a model's tensors in float32, under BlinkDL's names and as its files have them."""
    source = torch.Generator(place)
    source.manual_seed(0)
    biases: dict[str, torch.Tensor] = {}
    for draw in draws(shape):
        made = torch.empty(draw.shape, device=place)
        if draw.uniform:
            made.uniform_(-1, 1, generator=source)
        else:
            made.normal_(generator=source)
        made.mul_(draw.spread).add_(draw.mean)
        if draw.against:  # so that most of relu(k)^2 is zero, as in trained models
            bias = biases[draw.against]
            middle = -NormalDist().inv_cdf(shape.zeros) * sqrt(TOKEN**2 + VARIETY**2 + BIAS**2)
            each = torch.empty(len(made), 1, device=place).normal_(
                middle, VARIETY, generator=source
            )
            made.add_(each * (bias / bias.dot(bias)))
        if draw.name.endswith("ln2.bias"):
            biases[draw.name] = made
        yield draw.name, made


def random_weights(shape: Shape, dtype: str, place: torch.device) -> Weights:
    """Draw a model in the forms that its kernels read."""
    arch, dims = detect({draw.name: draw.shape for draw in draws(shape)})
    where = {p.name: p for p in placements(arch, dims, {draw.name for draw in draws(shape)})}
    weights = Weights(arch, dims, dtype)
    loader = _Loader(None, weights, place)  # type: ignore[arg-type]  # no file is read
    for name, tensor in tensors(shape, place):
        _add(loader, where[name], tensor)
    return weights


def _add(loader: _Loader, where: Placement, tensor: torch.Tensor) -> None:
    """Put a tensor where `load_weights` would have put it."""
    weights, dtype = loader.weights, loader.weights.dtype
    if where.role == "vector":
        weights.vectors[where.name] = tensor.reshape(-1).clone()
        return
    rows = where.layout == "rows"
    if not weights.packed or where.role == "embedding" or (where.role == "fine" and not rows):
        shape = (where.cols, where.rows) if where.transposed else (where.rows, where.cols)
        plain = tensor.to(weights.plane).reshape(shape)
        loader._add_matrix(where, plain, transposed=where.transposed)
        return
    kind = "int8" if where.role == "fine" else dtype  # int4 keeps the head in int8
    data = packed_rows(tensor, kind) if rows else packed_panels(tensor, kind)
    weights.matrices[where.name] = Matrix(data, TYPES[kind], where.rows, where.cols, not rows)
