"""The CUDA kernels that multiply matrices by a few tokens' inputs, on the CPU, against float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from oracle.cuda_host import compiler
from oracle.cuda_rows import (
    ACTIVATIONS,
    Floats,
    Wide,
    assert_within,
    gaussian,
    in_16_bits,
    launch,
    matrix,
    poisoned,
    sigmoid,
    states,
    wide,
)

from rwkv_cli.engine.cuda.decode import BATCHES, UNITS, Decode, dot_parts
from rwkv_cli.native.library import is_available
from rwkv_cli.native.pack import TYPES

if compiler() is None or not is_available():
    pytest.skip("there is no C++ compiler, or no native library", allow_module_level=True)

THREADS = 256
PACKED = ("int8", "int4")
OFFSET = 96  # floats of a state before the parts that a launch means
MARGIN = 4  # nobody's numbers beside an output
NORM_EPS = 1e-5
HALF_UNIT = 2.0**-24  # what a rounded float32 is off by, relative
WIDTHS = (96, 160, 320)
SIZES = (1.0, 3e-3, 30.0)  # of a sequence's numbers: one has a variance near the norm's epsilon

NONE, TANH, SIGMOID, SQUARED_RELU, SILU = range(5)


@dataclass(frozen=True)
class Role:
    """A matrix of a launch: its outputs and type, and what its products become."""

    rows: int
    dtype: str
    mix: bool = False
    own: bool = False
    activation: int = NONE
    add: bool = False


class Products:
    """A random launch, with its results in float64.

    Its source is "plain" numbers, "normed" ones, those of the "head" without states, or RWKV-4's
    "average". From `OFFSET` on, a state has the token before, and the average's sums and exponent.
    """

    def __init__(self, sequences: int, cols: int, source: str, roles: Sequence[Role]) -> None:
        rng = np.random.default_rng(cols + sequences)
        self.sequences, self.cols, self.source, self.roles = sequences, cols, source, roles
        shape = (sequences, cols)
        sizes = np.resize(np.array(SIZES, np.float32), (sequences, 1))
        self.x = (gaussian(rng, *shape) + np.float32(0.5)) * sizes
        self.norm = {"weight": gaussian(rng, cols), "bias": gaussian(rng, cols)}
        self.tokens = {name: gaussian(rng, *shape) for name in "rkv"}
        self.decay = {"log_w": -np.exp(gaussian(rng, cols)), "u": gaussian(rng, cols)}
        self.before = [gaussian(rng, OFFSET + 4 * cols + 32) for _ in range(sequences)]
        for state in self.before:
            state[self.part(2)] = np.exp(state[self.part(2)])  # a denominator is positive
        self.before[0][self.part(1).start :] = 0  # before the first token of a text
        self.before[0][self.part(3)] = -1e38
        self.after = [poisoned(len(state)) for state in self.before]
        self.own = [gaussian(rng, *shape, scale=3) for _ in roles]
        self.mix = [rng.random(cols).astype(np.float32) for _ in roles]
        self.weights = [matrix(rng, role.dtype, "rows", role.rows, cols) for role in roles]
        self.residual = [gaussian(rng, sequences, role.rows) for role in roles]

    def part(self, index: int) -> slice:
        return slice(OFFSET + index * self.cols, OFFSET + (index + 1) * self.cols)

    def states(self, sequences: slice, index: int) -> dict[str, Any]:
        return states(self.before[sequences], self.after[sequences], self.part(index).start)

    @property
    def packed(self) -> bool:
        return any(role.dtype in PACKED for role in self.roles)

    def units(self) -> list[int]:
        """What each matrix is cut into; a card of many processors is given as many blocks."""
        floats = UNITS[self.packed]  # 16 of a packed matrix
        return [-(-role.rows // (16 if role.dtype in PACKED else floats)) for role in self.roles]

    def run(
        self, grid: int | None = None, sequences: slice = slice(None), *, commit: int = 1
    ) -> list[Floats]:
        """Launch on all sequences or some: each role's products."""
        for state in self.after:
            state.fill(np.nan)
        count = len(self.x[sequences])
        outs = [poisoned(count, role.rows + MARGIN) for role in self.roles]
        for role, out, residual in zip(self.roles, outs, self.residual, strict=True):
            if role.add:
                out[:, : role.rows] = residual[sequences]
        units = sum(self.units())
        parts = max(dot_parts(self.cols, TYPES[role.dtype]) for role in self.roles)
        shared = Decode.dot_bytes(count, self.cols, parts)
        launch(
            f"dot_{count}", "DotArguments", (grid or units, 1, 1), THREADS, shared,
            source={**self._source(sequences), "cols": self.cols, "commit": commit},
            roles=self._roles(sequences, outs), count=len(outs), units=units,
            unit=UNITS[self.packed], parts=parts,
        )  # fmt: skip
        for role, out in zip(self.roles, outs, strict=True):
            assert np.isnan(out[:, role.rows :]).all()
        return [out[:, : role.rows] for role, out in zip(self.roles, outs, strict=True)]

    def _source(self, sequences: slice) -> dict[str, Any]:
        if self.source == "plain":
            return {"x": self.x[sequences]}
        if self.source in ("normed", "head"):
            shift = {"shift": self.states(sequences, 0)} if self.source == "normed" else {}
            return {"x": self.x[sequences], **self.norm, **shift}
        average = {name: array[sequences] for name, array in self.tokens.items()} | self.decay
        for i, name in enumerate(("numerator", "denominator", "exponent")):
            average[name] = self.states(sequences, 1 + i)
        return {"average": average}

    def _roles(self, sequences: slice, outs: list[Floats]) -> list[dict[str, Any]]:
        firsts = np.cumsum([0, *self.units()])
        return [
            {
                "weights": weights, "mix": mix if role.mix and self.source == "normed" else None,
                "in": own[sequences] if role.own else None, "out": out, "type": TYPES[role.dtype],
                "rows": role.rows, "stride": out.shape[1], "activation": role.activation,
                "add": int(role.add), "first": int(first),
            }
            for role, (weights, _), mix, own, out, first in zip(
                self.roles, self.weights, self.mix, self.own, outs, firsts[:-1], strict=True
            )
        ]  # fmt: skip

    def inputs(self) -> tuple[Wide, list[Wide]]:
        """What the source gives, and the four arrays of the states after it."""
        before = np.stack(self.before).astype(np.float64)
        numerator, denominator, exponent = (before[:, self.part(i)] for i in (1, 2, 3))
        untouched = np.full(numerator.shape, np.nan)
        x = self.x.astype(np.float64)
        if self.source == "plain":
            return x, [untouched] * 4
        if self.source in ("normed", "head"):
            x -= x.mean(1, keepdims=True)
            x /= np.sqrt((x**2).mean(1, keepdims=True) + NORM_EPS)
            x = x * self.norm["weight"].astype(np.float64) + self.norm["bias"]
            return x, [x, untouched, untouched, untouched]
        r, k, v, log_w, u = wide(*self.tokens.values(), *self.decay.values())
        top = np.maximum(exponent, u + k)
        past, now = np.exp(exponent - top), np.exp(u + k - top)
        x = sigmoid(r) * (past * numerator + now * v) / (past * denominator + now)
        top = np.maximum(exponent + log_w, k)
        past, now = np.exp(exponent + log_w - top), np.exp(k - top)
        return x, [untouched, past * numerator + now * v, past * denominator + now, top]

    def check(self, outs: list[Floats]) -> None:
        """Compare products with float64."""
        present, _ = self.inputs()
        before = np.stack(self.before)[:, self.part(0)].astype(np.float64)
        for i, (role, out) in enumerate(zip(self.roles, outs, strict=True)):
            x, weights = present, self.weights[i][1]
            # A computed input is the sum of a few rounded numbers of about these sizes.
            size = 1 + np.abs(x) + np.abs(before)
            if role.own:
                x = self.own[i]
            elif role.mix and self.source == "normed":
                x = x + (before - x) * self.mix[i]
            exact = role.own or self.source == "plain"
            off = np.zeros_like(size) if exact else 12 * HALF_UNIT * size
            if role.dtype in PACKED:
                rounded, step = in_16_bits(x)
                x, off = (rounded, off) if exact else (x, off + 0.5001 * step)
            products = x.astype(np.float64) @ weights.T
            # A lane adds up to 12 products, or one a block, and lanes and warps about as many.
            bound = (24 * HALF_UNIT * np.abs(x) + off) @ np.abs(weights).T
            function, slope = ACTIVATIONS[role.activation]
            expected = function(products) + (self.residual[i] if role.add else 0)
            last = (4 * HALF_UNIT if role.activation or role.add else 0) * (1 + np.abs(expected))
            assert_within(out, expected, bound * slope(products) + last)

    def check_states(self) -> None:
        after = np.stack(self.after)
        for index, expected in enumerate(self.inputs()[1]):
            got = after[:, self.part(index)]
            assert np.array_equal(np.isnan(got), np.isnan(expected))
            touched = ~np.isnan(expected)
            size = 12 * HALF_UNIT * (2 + np.abs(expected[touched]))
            assert_within(got[touched], expected[touched], size)
        assert np.isnan(after[:, :OFFSET]).all()
        assert np.isnan(after[:, self.part(3).stop :]).all()


@pytest.mark.parametrize("sequences", BATCHES)
@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("dtype", TYPES)
def test_products_are_those_of_float64(dtype: str, cols: int, sequences: int) -> None:
    roles = [Role(37, dtype, own=True), Role(70, dtype), Role(16, dtype, add=True)]
    case = Products(sequences, cols, "plain", roles)
    for grid in (None, 1, 3):
        case.check(case.run(grid))
    case.check_states()


# Nine matrices of every type, as many as fit a launch; rows that fill no block of 16 and no warp.
MIXED = [
    Role(33, "fp16", mix=True, activation=TANH),
    Role(50, "int8", mix=True, activation=SIGMOID),
    Role(5, "fp32", activation=SQUARED_RELU),
    Role(40, "int4", mix=True, activation=SILU),
    Role(64, "bf16", mix=True, add=True),
    Role(17, "int8", activation=SQUARED_RELU, add=True),
    Role(1, "int4", own=True, add=True),
    Role(24, "fp16", own=True, activation=SILU),
    Role(16, "fp32", mix=True, activation=SIGMOID),
]


@pytest.mark.parametrize("sequences", BATCHES)
@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize("source", ["normed", "average"])
def test_matrices_of_every_type_share_a_launch_that_advances_the_states(
    source: str, cols: int, sequences: int
) -> None:
    case = Products(sequences, cols, source, MIXED)
    whole = case.run()
    case.check(whole)
    case.check_states()
    for grid in (1, 3, 7):
        outs = case.run(grid)
        assert all(map(np.array_equal, outs, whole))
        case.check_states()


@pytest.mark.parametrize("source", ["plain", "normed", "average"])
def test_a_sequence_among_eight_is_the_same_bits_as_among_fewer(source: str) -> None:
    case = Products(8, 320, source, MIXED)
    eight, after = case.run(), [state.copy() for state in case.after]
    for fewer in (1, 2, 4):
        for start in range(0, 8, fewer):
            part = slice(start, start + fewer)
            few = case.run(sequences=part)
            assert all(np.array_equal(a[part], b) for a, b in zip(eight, few, strict=True))
            for a, b in zip(after[part], case.after[part], strict=True):
                assert np.array_equal(a, b, equal_nan=True)


def test_a_warp_that_is_late_still_has_the_inputs_of_its_matrix() -> None:
    case = Products(1, 32, "normed", [Role(480, dtype, i % 2 > 0) for i, dtype in enumerate(TYPES)])
    whole = case.run()
    for _ in range(4):  # threads take turns in another order each time
        assert all(map(np.array_equal, case.run(1), whole))


@pytest.mark.parametrize("source", ["normed", "average", "head"])
def test_states_are_left_alone_unless_the_launch_commits_them(source: str) -> None:
    case = Products(4, 96, source, MIXED)
    case.check(case.run(commit=0))
    assert np.isnan(np.stack(case.after)).all()


@pytest.mark.parametrize("dtype", ["bf16", "fp32", "int4"])
@pytest.mark.parametrize("sequences", [1, 2])
def test_inputs_may_be_more_than_a_block_has_threads_for(sequences: int, dtype: str) -> None:
    for source in ("normed", "average"):
        case = Products(sequences, 2080, source, [Role(33, dtype, mix=True), Role(16, dtype)])
        case.check(case.run())
        case.check_states()


@pytest.mark.parametrize("source", ["plain", "normed", "average"])
def test_an_input_that_is_no_number_reaches_every_output_of_its_sequence(source: str) -> None:
    case = Products(2, 160, source, [Role(20, dtype) for dtype in TYPES])
    case.x[1, 77] = case.tokens["v"][1, 77] = np.nan
    for out in case.run():
        assert np.isnan(out[1]).all()
        assert not np.isnan(out[0]).any()


@pytest.mark.parametrize("dtype", TYPES)
def test_inputs_of_every_size_are_multiplied(dtype: str) -> None:
    case = Products(4, 160, "plain", [Role(33, dtype)])
    case.x[0] = 0
    case.x[1, 32:96] = 0
    case.x[2] *= 2.0**80
    case.x[2, 64:96] *= 2.0**-60  # a group beside which all others are large
    case.x[3] = -65504
    case.check(case.run())
