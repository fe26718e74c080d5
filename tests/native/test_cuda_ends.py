"""The CUDA kernels that embed a token and mix RWKV-6's inputs, on the CPU, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracle.cuda_host import compiler
from oracle.cuda_rows import (
    PLANES,
    Floats,
    Wide,
    assert_close,
    gaussian,
    launch,
    numbers,
    poisoned,
    states,
)
from oracle.packing import from_float

from rwkv_cli.engine.cuda.program import shared_bytes

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")

THREADS = 256
OFFSET = 96  # floats of a state before the part that a kernel means
NORM_EPS = 1e-5
WIDTHS = (32, 96, 160, 320, 1056)  # the last: more than a block has threads for
MIXES, CHANNELS = 5, 64  # of mix6, the latter of a block


def normed(x: Any, weight: Floats, bias: Floats) -> Wide:
    centered = x - x.mean(1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(1, keepdims=True) + NORM_EPS) * weight + bias


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PLANES)
def test_a_token_enters_as_its_normalized_embedding(dtype: str, width: int) -> None:
    rng = np.random.default_rng(width)
    x = gaussian(rng, 70, width) + np.float32(0.5)
    x[3] *= np.float32(3e-3)  # of a variance near the norm's epsilon
    weights = from_float(x, dtype)
    weight, bias = gaussian(rng, width), gaussian(rng, width)
    tokens = np.array([69, 3, 0, 3, 41], np.int32)
    out = poisoned(len(tokens) + 1, width)
    launch(
        "embed", "EmbedArguments", (len(tokens), 1, 1), THREADS, shared_bytes(8 * 8),
        tokens=tokens, weights=weights, norm_weight=weight, norm_bias=bias, x=out,
        type=PLANES[dtype], width=width,
    )  # fmt: skip
    rows = numbers(weights, dtype).astype(np.float64)[tokens]
    assert_close(out[:-1], normed(rows, weight, bias), absolute=3e-6)
    assert np.isnan(out[-1]).all()
    assert np.array_equal(out[1], out[3])


class Mixing:
    """A random case of mix6, with its result in float64."""

    def __init__(self, sequences: int, cols: int, rank: int, dtype: str) -> None:
        rng = np.random.default_rng(cols + rank)
        self.sequences, self.cols, self.rank, self.dtype = sequences, cols, rank, dtype
        self.x = (gaussian(rng, sequences, cols) + np.float32(0.5)) * np.float32(2)
        self.x[-1] *= np.float32(1.5e-3)
        self.weight, self.bias = gaussian(rng, cols), gaussian(rng, cols)
        self.maa = [gaussian(rng, cols) for _ in range(MIXES)]
        self.low = np.tanh(gaussian(rng, sequences, MIXES * rank))
        self.up = from_float(gaussian(rng, MIXES, rank, cols, scale=rank**-0.5), dtype)
        self.before = [gaussian(rng, OFFSET + cols + 32) for _ in range(sequences)]
        self.after = [poisoned(OFFSET + cols + 32) for _ in range(sequences)]

    def run(self, part: slice = slice(None)) -> Floats:
        x, low = self.x[part], self.low[part]
        out = poisoned(MIXES * len(x) + 1, self.cols)
        source = {
            "x": x, "weight": self.weight, "bias": self.bias, "cols": self.cols, "commit": 0,
            "shift": states(self.before[part], self.after[part], OFFSET),
        }  # fmt: skip
        up = {
            "weights": self.up, "low": low, "type": PLANES[self.dtype], "rank": self.rank,
            "stride": MIXES * self.rank,
        }  # fmt: skip
        launch(
            "mix6", "Mix6Arguments", (-(-self.cols // CHANNELS), MIXES, len(x)), THREADS,
            shared_bytes(4 * 8 * CHANNELS, 4 * CHANNELS, 8 * 8),
            source=source, maa=self.maa, up=up, out=out, sequences=len(x),
        )  # fmt: skip
        assert np.isnan(out[-1]).all()
        return out[:-1].reshape(MIXES, len(x), self.cols)

    def expected(self) -> Wide:
        x = normed(self.x.astype(np.float64), self.weight, self.bias)
        before = np.stack(self.before)[:, OFFSET:-32].astype(np.float64)
        low = self.low.astype(np.float64).reshape(self.sequences, MIXES, self.rank)
        raised = np.einsum("bmr,mrc->mbc", low, numbers(self.up, self.dtype).astype(np.float64))
        return x + (before - x) * (np.stack(self.maa)[:, None] + raised)


@pytest.mark.parametrize("sequences", [1, 2, 8])
@pytest.mark.parametrize("rank", [8, 13, 32])
@pytest.mark.parametrize("cols", WIDTHS[:-1])
@pytest.mark.parametrize("dtype", PLANES)
def test_inputs_are_mixed_by_what_the_token_says(
    dtype: str, cols: int, rank: int, sequences: int
) -> None:
    case = Mixing(sequences, cols, rank, dtype)
    # Inputs of about 5, each off by a few units of 2**-23, times a share of about 3.
    assert_close(case.run(), case.expected(), absolute=1e-5)
    assert np.isnan(np.stack(case.after)).all()


def test_mixed_inputs_are_the_same_bits_beside_every_neighbour() -> None:
    case = Mixing(8, 160, 32, "fp16")
    whole = case.run()
    for start in range(8):
        part = slice(start, start + 1)
        assert np.array_equal(case.run(part), whole[:, part])
