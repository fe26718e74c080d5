"""Write random models of the official shapes that behave like trained ones, as bf16 safetensors.

`python benchmarks/synthetic.py [--folder DIR] [--models v7-0.1b,...] [--measure]`

Speed depends on values in one place: rows of the channel-mixing's value matrix whose relu(k)^2 is
zero need not be read. The rows of the key matrix therefore oppose the bias of the norm before
them, each by an amount of its own, until the share of zeros is that of trained models (some
channels fire often, some hardly ever). With --measure each layer's share is measured on random
tokens, with the size of the residual stream and the entropy of the logits.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator
from math import prod, sqrt
from pathlib import Path
from statistics import NormalDist

import numpy as np
from shapes import MODELS, Draw, Shape, default_folder, parameters

BLOCK = 1 << 22
# Standard deviations of k. By token: of two inputs, mixed by shares uniform over the channels, 2/3
# of the variance remain, and somewhat more where neighbours are alike.
TOKEN = 0.87
# By channel, beside what the norm's bias brings at random: some channels fire often, some hardly
# ever. The union over 64 random tokens leaves some 10 % of the rows unread, as in trained models.
VARIETY, BIAS = 0.5, 0.3


def write(shape: Shape, path: Path, seed: int = 0) -> None:
    """Write a model, the same bytes for the same shape and seed; holds one block at a time."""
    draws = list(parameters(shape))
    biases = {d.name: d for d in draws if d.name.endswith("ln2.bias")}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(_header(draws))
        for draw in draws:
            opposed = None
            if draw.against:
                opposed = np.concatenate(list(_blocks(biases[draw.against], seed)))
            for block in _blocks(draw, seed, opposed, shape.zeros):
                file.write(bf16(block).tobytes())
    temporary.replace(path)


def bf16(values: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16, ties to even, as uint16."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def _header(draws: list[Draw]) -> bytes:
    table, edge = {}, 0
    for draw in draws:
        size = 2 * prod(draw.shape)
        table[draw.name] = {
            "dtype": "BF16",
            "shape": list(draw.shape),
            "data_offsets": [edge, edge + size],
        }
        edge += size
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    return len(text).to_bytes(8, "little") + text


def _blocks(
    draw: Draw, seed: int, opposed: np.ndarray | None = None, zeros: float = 0.5
) -> Iterator[np.ndarray]:
    """Draw the values of a tensor, some rows at a time, flat."""
    rng = np.random.default_rng([seed, zlib.crc32(draw.name.encode())])
    inner = draw.shape[-1]
    rows, step = prod(draw.shape) // inner, max(1, BLOCK // inner)
    for start in range(0, rows, step):
        count = min(step, rows - start)
        if draw.uniform:
            block = 2 * rng.random((count, inner), np.float32) - 1
        else:
            block = rng.standard_normal((count, inner), np.float32)
        block *= np.float32(draw.spread)
        block += np.float32(draw.mean)
        if opposed is not None:
            block += _offsets(rng, count, zeros)[:, None] * (opposed / (opposed @ opposed))
        yield block.reshape(-1)


def _offsets(rng: np.random.Generator, rows: int, zeros: float) -> np.ndarray:
    """Mean of k, a row, in which a share of `zeros` of all k is negative."""
    middle = -NormalDist().inv_cdf(zeros) * sqrt(TOKEN**2 + VARIETY**2 + BIAS**2)
    return (middle + VARIETY * rng.standard_normal(rows, np.float32)).astype(np.float32)


def main() -> None:
    """Write the models that are asked for, and measure them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_folder())
    parser.add_argument("--models", default=",".join(MODELS), help="names, with commas between")
    parser.add_argument("--measure", action="store_true", help="measure what the models do")
    args = parser.parse_args()
    for name in args.models.split(","):
        path = args.folder / f"{name}.safetensors"
        if not path.exists():
            write(MODELS[name], path)
        print(f"{name}: {path}, {path.stat().st_size / 1e6:.0f} MB", flush=True)
        if args.measure:
            from measure_models import measure  # torch is imported only here

            print(measure(path), flush=True)


if __name__ == "__main__":
    main()
