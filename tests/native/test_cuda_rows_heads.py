"""The CUDA kernels for heads before and after the recurrence, on the CPU, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.cuda_host import compiler
from oracle.cuda_rows import (
    PLANES,
    Floats,
    assert_close,
    gaussian,
    launch,
    numbers,
    poisoned,
    poisoned_plane,
    sigmoid,
    wide,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")

THREADS = 256
HEAD_EPS = 64e-5
HEADS = [(1, 3, 64), (33, 10, 32), (9, 3, 64), (7, 2, 128)]  # rows, heads, head size


def gates(
    shape: tuple[int, int, int], grid: int, *, first_layer: bool
) -> tuple[dict[str, Any], ...]:
    """Launch rows_gates7: the arrays as they were, and as they are."""
    rows, heads, size = shape
    rng = np.random.default_rng(4)
    width = heads * size
    matrices = {
        n: gaussian(rng, rows, width, scale=2)
        for n in ("k", "v", "decay", "rate", "share", "first")
    }
    vectors = {n: gaussian(rng, width) for n in ("w0", "a0", "v0", "k_k", "k_a")}
    matrices["k"][0, size : 2 * size] = 0  # a head whose removal key has no direction
    matrices["k"][-1, :size] *= 1e-6  # and one whose key is short, but has one
    if first_layer:
        matrices["first"].fill(np.nan)
    arrays = {n: x.copy() for n, x in matrices.items()} | {"removal": poisoned(rows, width)}
    absent = {"v0": None, "share": None} if first_layer else {}
    launch(
        "rows_gates7", "RowsGates7Arguments", (grid, heads, 1), THREADS,
        rows=rows, head_size=size, **(arrays | vectors | absent),
    )  # fmt: skip
    return {n: x.astype(np.float64) for n, x in (matrices | vectors).items()}, arrays


@pytest.mark.parametrize("shape", HEADS, ids=str)
@pytest.mark.parametrize("first_layer", [False, True])
def test_gates_are_those_of_the_paper(shape: tuple[int, int, int], first_layer: bool) -> None:
    rows, heads, size = shape
    old, new = gates(shape, -(-rows // 8), first_layer=first_layer)
    rate = sigmoid(old["a0"] + old["rate"])
    kappa = (old["k"] * old["k_k"]).reshape(rows, heads, size)
    kappa /= np.maximum(np.sqrt((kappa**2).sum(2, keepdims=True)), 1e-12)
    kappa = kappa.reshape(rows, -1)
    assert_close(new["decay"], np.exp(-np.exp(-0.5) * sigmoid(old["w0"] + old["decay"])))
    assert_close(new["removal"], -kappa)
    assert_close(new["rate"], kappa * rate)
    assert_close(new["k"], old["k"] * (1 + (rate - 1) * old["k_a"]))
    if first_layer:
        assert np.array_equal(new["v"], old["v"])
        assert np.array_equal(new["first"], old["v"])
    else:
        share = sigmoid(old["v0"] + old["share"])
        assert_close(new["v"], old["v"] + (old["first"] - old["v"]) * share)
        assert np.array_equal(new["first"], old["first"])


def test_gates_are_the_same_bits_under_every_grid() -> None:
    _, expected = gates((33, 10, 32), 5, first_layer=False)
    for grid in (1, 2, 9):
        _, got = gates((33, 10, 32), grid, first_layer=False)
        assert all(np.array_equal(got[name], expected[name]) for name in got)


class Reading:
    """A random case of rows_post, with its result in float64."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        rows, heads, size = self.shape = shape
        rng = np.random.default_rng(5)
        width = heads * size
        self.matrices = {n: gaussian(rng, rows, width) for n in ("y", "r", "k", "v", "gate")}
        self.matrices["y"] += 3
        self.matrices["y"][0] *= 1e-2  # far below the epsilon, where a wrong one shows
        self.vectors = {n: gaussian(rng, width) for n in ("weight", "bias", "r_k")}

    def run(self, dtype: str, grid: int | None = None, **changes: Any) -> Floats:
        rows, heads, size = self.shape
        plane = poisoned_plane(dtype, rows, heads * size)
        fields = {
            **self.matrices, **self.vectors, "plane": plane, "rows": rows, "head_size": size,
            "activation": 0, "plane_type": PLANES[dtype], **changes,
        }  # fmt: skip
        blocks = (grid or -(-rows // 8), heads, 1)
        launch("rows_post", "RowsPostArguments", blocks, THREADS, **fields)
        return numbers(plane, dtype)

    def normed(self) -> NDArray[np.float64]:
        y = self.matrices["y"].astype(np.float64).reshape(self.shape)
        centered = y - y.mean(2, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(2, keepdims=True) + HEAD_EPS)
        weight, bias = wide(self.vectors["weight"], self.vectors["bias"])
        return scaled.reshape(len(y), -1) * weight + bias

    def bonus(self) -> NDArray[np.float64]:
        r, k, v = wide(*(self.matrices[n] for n in "rkv"))
        share = (r * k * self.vectors["r_k"]).reshape(self.shape).sum(2, keepdims=True)
        return (share * v.reshape(self.shape)).reshape(len(r), -1)


@pytest.mark.parametrize("dtype", PLANES)
@pytest.mark.parametrize("shape", HEADS, ids=str)
def test_a_reading_is_normalized_raised_by_its_bonus_and_gated(
    shape: tuple[int, int, int], dtype: str
) -> None:
    case = Reading(shape)
    gate = case.matrices["gate"].astype(np.float64)
    plain, past = {"r_k": None, "r": None, "k": None, "v": None}, case.normed()
    assert_close(case.run(dtype, **plain, gate=None), past, dtype, 3e-5)  # RWKV-5.0
    assert_close(case.run(dtype, **plain, activation=4), past * gate * sigmoid(gate), dtype, 3e-5)
    assert_close(case.run(dtype), (past + case.bonus()) * gate, dtype, 1e-4)  # RWKV-7


def test_readings_are_the_same_bits_under_every_grid() -> None:
    case = Reading((33, 10, 32))
    expected = case.run("fp16")
    assert all(np.array_equal(case.run("fp16", grid), expected) for grid in (1, 2, 9))
