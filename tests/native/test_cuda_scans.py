"""The CUDA kernels of the recurrences over whole sequences, on the CPU, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.cuda_host import compiler
from oracle.cuda_rows import (
    PLANES,
    Floats,
    Plane,
    assert_close,
    gaussian,
    launch,
    numbers,
    poisoned,
    poisoned_plane,
    sigmoid,
    starts,
    states,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")

SPLIT, ROWS, TOKENS = 4, 16, 8  # threads of a row, rows of a block, tokens of a tile
OFFSET = 160  # floats of a state before the part that a kernel means
# Sequences, tokens, heads, head size.
SHAPES = [
    (1, 1, 3, 64),
    (3, 1, 2, 32),
    (1, 2, 1, 128),
    (3, 7, 3, 64),
    (1, 33, 5, 64),
    (2, 24, 1, 32),
]


class MatrixScan:
    """A random case of a recurrence with a matrix for each head.

    Args:
        version: "7", "6", or "5", whose decays are constants.
    """

    def __init__(self, version: str, shape: tuple[int, int, int, int]) -> None:
        self.version, self.shape = version, shape
        sequences, tokens, heads, size = shape
        rng = np.random.default_rng(6)
        width = heads * size
        matrices = (sequences * tokens, width)
        self.operands = {n: gaussian(rng, *matrices, scale=0.5) for n in ("r", "k", "v")}
        if version == "7":
            kappa = rng.standard_normal((sequences * tokens, heads, size))
            kappa /= np.linalg.norm(kappa, axis=2, keepdims=True)
            self.operands["removal"] = -kappa.reshape(matrices).astype(np.float32)
            self.operands["replacement"] = -self.operands["removal"] * rng.random(
                matrices, np.float32
            )
            self.operands["w"] = rng.uniform(0.55, 1, matrices).astype(np.float32)
        else:
            self.operands["u"] = gaussian(rng, width)
            self.operands["product"] = gaussian(rng, *matrices)
            self.operands["decay"] = gaussian(rng, width, scale=2) - 2
        if version == "5":
            self.operands["decay"] = rng.uniform(0.1, 1, width).astype(np.float32)
        self.before = [gaussian(rng, OFFSET + width * size, scale=0.5) for _ in range(sequences)]
        self.after = [poisoned(OFFSET + width * size + 32) for _ in range(sequences)]

    def run(self, **changes: Any) -> Floats:
        sequences, tokens, heads, size = self.shape
        y = poisoned(sequences * tokens, heads * size)
        fields = {
            **self.operands, "y": y, "state": states(self.before, self.after, OFFSET),
            "starts": starts(sequences, tokens), "width": heads * size, **changes,
        }  # fmt: skip
        if self.version == "5":
            fields["product"] = None
        scan = "7" if self.version == "7" else "6"
        shared = TOKENS * ((5 if scan == "7" else 3) * size + ROWS) * 4
        launch(
            f"scan{scan}_{size}", f"Scan{scan}Arguments", (heads, size // ROWS, sequences),
            ROWS * SPLIT, shared, **fields,
        )  # fmt: skip
        return y

    def expected(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is read, and the states after: (rows, width), (sequences, heads, size, size)."""
        sequences, tokens, heads, size = self.shape
        wide = {n: x.astype(np.float64) for n, x in self.operands.items()}
        by_head = (sequences, tokens, heads, size)
        part = {n: x.reshape(by_head) for n, x in wide.items() if x.ndim == 2}
        start = np.stack(self.before)[:, OFFSET:].astype(np.float64)
        state = start.reshape(sequences, heads, size, size)
        y = np.empty(by_head)
        if self.version != "7":
            decay = wide["decay"].reshape(heads, size)
            bonus = wide["u"].reshape(heads, 1, size)
        for t in range(tokens):
            at = {n: x[:, t] for n, x in part.items()}
            added = at["v"][..., :, None] * at["k"][..., None, :]
            if self.version == "7":
                removed = (state * at["removal"][..., None, :]).sum(-1)
                state = (
                    state * at["w"][..., None, :]
                    + removed[..., None] * at["replacement"][..., None, :]
                )
                state = state + added
                y[:, t] = (state * at["r"][..., None, :]).sum(-1)
            else:
                y[:, t] = ((state + bonus * added) * at["r"][..., None, :]).sum(-1)
                w = np.exp(-np.exp(decay + at["product"])) if self.version == "6" else decay
                state = state * np.broadcast_to(w, at["k"].shape)[..., None, :] + added
        return y.reshape(-1, heads * size), state


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("version", ["5", "6", "7"])
def test_a_scan_reads_and_writes_what_the_recurrence_says(
    version: str, shape: tuple[int, int, int, int]
) -> None:
    case = MatrixScan(version, shape)
    y = case.run()
    wanted, state = case.expected()
    assert_close(y, wanted, absolute=3e-5)
    for got, end in zip(case.after, state, strict=True):
        assert_close(got[OFFSET:-32], end.ravel(), absolute=2e-5)
        assert np.isnan(got[:OFFSET]).all()
        assert np.isnan(got[-32:]).all()


@pytest.mark.parametrize("version", ["5", "6", "7"])
def test_a_scan_may_advance_its_state_in_place(version: str) -> None:
    apart, together = (MatrixScan(version, (2, 9, 2, 64)) for _ in range(2))
    expected = apart.run()
    assert np.array_equal(
        together.run(state=states(together.before, together.before, OFFSET)), expected
    )
    for a, b in zip(apart.after, together.before, strict=True):
        assert np.array_equal(a[OFFSET:-32], b[OFFSET:])


@pytest.mark.parametrize("cut", [1, 8, 13])
@pytest.mark.parametrize("version", ["6", "7"])
def test_a_scan_may_be_cut_anywhere(version: str, cut: int) -> None:
    whole = MatrixScan(version, (1, 20, 2, 64))
    expected, state = whole.run(), whole.before
    for part in (slice(0, cut), slice(cut, 20)):
        case = MatrixScan(version, (1, 20, 2, 64))
        case.shape = (1, part.stop - part.start, 2, 64)
        case.operands = {n: x[part].copy() if x.ndim == 2 else x for n, x in case.operands.items()}
        assert np.array_equal(case.run(state=states(state, case.after, OFFSET)), expected[part])
        state = case.after
    assert np.array_equal(state[0], whole.after[0], equal_nan=True)


def test_a_sequence_is_scanned_as_if_it_were_alone() -> None:
    batch, alone = (MatrixScan("7", (3, 7, 2, 64)) for _ in range(2))
    expected = batch.run()[14:]
    alone.shape = (1, 7, 2, 64)
    alone.operands = {n: x[14:].copy() for n, x in alone.operands.items()}
    assert np.array_equal(
        alone.run(state=states(alone.before[2:], alone.after[2:], OFFSET)), expected
    )
    assert np.array_equal(alone.after[2], batch.after[2], equal_nan=True)


@pytest.mark.parametrize("version", ["5", "6", "7"])
def test_sequences_of_different_lengths_are_scanned_as_if_alone(version: str) -> None:
    begin, rows = np.array([0, 9, 9, 10, 19], np.int32), 20
    batch = MatrixScan(version, (4, 5, 2, 64))
    y = batch.run(starts=begin)
    for sequence, length in enumerate(np.diff(begin).tolist()):
        if length == 0:
            assert np.isnan(batch.after[sequence]).all()
            continue
        alone, part = (
            MatrixScan(version, (4, 5, 2, 64)),
            slice(begin[sequence], begin[sequence + 1]),
        )
        alone.shape = (1, length, 2, 64)
        alone.operands = {
            n: x[part].copy() if x.ndim == 2 else x for n, x in alone.operands.items()
        }
        expected = alone.run(state=states(batch.before[sequence:], alone.after, OFFSET))
        assert np.array_equal(y[part], expected)
        assert np.array_equal(alone.after[0], batch.after[sequence], equal_nan=True)
    assert np.isnan(y[begin[-1] : rows]).all()


def test_averages_of_different_lengths_are_taken_as_if_alone() -> None:
    begin = np.array([0, 11, 11, 12], np.int32)
    batch = Average(3, 4, 96)
    y = batch.run("fp32", starts=begin)
    assert np.isnan(batch.after[1]).all()
    for sequence, length in ((0, 11), (2, 1)):
        alone, part = Average(3, 4, 96), slice(begin[sequence], begin[sequence + 1])
        alone.sequences, alone.tokens = 1, length
        alone.operands = {
            n: x[part].copy() if x.ndim == 2 else x for n, x in alone.operands.items()
        }
        expected = alone.run(
            "fp32", state=states(batch.before[sequence:], alone.after, alone.width)
        )
        assert np.array_equal(y[part], expected)
        assert np.array_equal(alone.after[0], batch.after[sequence], equal_nan=True)


# Numerators, denominators and exponents, as far apart as the layers of a model have them.
DENOMINATOR, EXPONENT = 2, 5


class Average:
    """A random case of RWKV-4's recurrence.

    Args:
        fresh: The states are those of the beginning, with no past.
    """

    def __init__(self, sequences: int, tokens: int, width: int, *, fresh: bool = False) -> None:
        self.sequences, self.tokens, self.width = sequences, tokens, width
        rng = np.random.default_rng(7)
        rows = sequences * tokens
        self.operands = {n: gaussian(rng, rows, width, scale=3) for n in ("r", "k", "v")}
        self.operands["k"] *= 20  # whose exponentials float32 cannot hold
        self.operands["log_w"] = -np.exp(gaussian(rng, width)).astype(np.float32)
        self.operands["u"] = gaussian(rng, width)
        self.before = [gaussian(rng, 7, width) for _ in range(sequences)]
        for state in self.before:
            state[DENOMINATOR] = np.abs(state[DENOMINATOR]) + 0.5
            if fresh:
                state[1] = state[DENOMINATOR] = 0
                state[EXPONENT] = -1e30
        self.after = [poisoned(7, width) for _ in range(sequences)]

    def run(self, dtype: str, **changes: Any) -> Plane:
        plane = poisoned_plane(dtype, self.sequences * self.tokens, self.width)
        fields = {
            **self.operands, "plane": plane, "state": states(self.before, self.after, self.width),
            "denominator": DENOMINATOR * self.width, "exponent": EXPONENT * self.width,
            "starts": starts(self.sequences, self.tokens), "width": self.width,
            "plane_type": PLANES[dtype], **changes,
        }  # fmt: skip
        launch("scan4", "Scan4Arguments", (-(-self.width // 64), self.sequences, 1), 64, **fields)
        return plane

    def expected(self) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        """What is read, and the sums after: (rows, width), each (sequences, width)."""
        by_token = (self.sequences, self.tokens, self.width)
        r, k, v = (self.operands[n].astype(np.float64).reshape(by_token) for n in "rkv")
        u, log_w = (self.operands[n].astype(np.float64) for n in ("u", "log_w"))
        before = np.stack(self.before).astype(np.float64)
        numerator, denominator, exponent = before[:, 1], before[:, DENOMINATOR], before[:, EXPONENT]
        y = np.empty(by_token)
        for t in range(self.tokens):
            top = np.maximum(exponent, u + k[:, t])
            past, now = np.exp(exponent - top), np.exp(u + k[:, t] - top)
            y[:, t] = (past * numerator + now * v[:, t]) / (past * denominator + now)
            top = np.maximum(exponent + log_w, k[:, t])
            past, now = np.exp(exponent + log_w - top), np.exp(k[:, t] - top)
            numerator, denominator = past * numerator + now * v[:, t], past * denominator + now
            exponent = top
        return (y * sigmoid(r)).reshape(-1, self.width), [numerator, denominator, exponent]


@pytest.mark.parametrize("dtype", PLANES)
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(("sequences", "tokens", "width"), [(1, 1, 192), (3, 2, 320), (2, 33, 96)])
def test_an_average_is_that_of_the_paper(
    sequences: int, tokens: int, width: int, fresh: bool, dtype: str
) -> None:
    case = Average(sequences, tokens, width, fresh=fresh)
    y = numbers(case.run(dtype), dtype)
    wanted, sums = case.expected()
    assert_close(y, wanted, dtype, 1e-4)  # exponents of some hundreds have steps of 3e-5
    for part, row in zip(sums, (1, DENOMINATOR, EXPONENT), strict=True):
        assert_close(np.stack(case.after)[:, row], part, absolute=3e-4)
    assert np.isnan(np.stack(case.after)[:, [0, 3, 4, 6]]).all()


def test_an_average_may_advance_its_state_in_place_and_be_cut_anywhere() -> None:
    whole, case = Average(1, 20, 192), Average(1, 20, 192)
    expected = whole.run("fp32")
    operands = case.operands
    for part in (slice(0, 9), slice(9, 20)):
        case.tokens = part.stop - part.start
        case.operands = {n: x[part].copy() if x.ndim == 2 else x for n, x in operands.items()}
        y = case.run("fp32", state=states(case.before, case.before, case.width))
        assert np.array_equal(y, expected[part])
    assert np.array_equal(case.before[0][[1, 2, 5]], whole.after[0][[1, 2, 5]])
