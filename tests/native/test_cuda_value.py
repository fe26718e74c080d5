"""The CUDA kernels of the value matrix, which skip inputs that are zero, on the CPU, against
float64.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.cuda_host import compiler
from oracle.cuda_rows import (
    BITS,
    PLANES,
    Floats,
    Plane,
    assert_within,
    gaussian,
    launch,
    matrix,
    poisoned,
    sigmoid,
    wide,
)

from rwkv_cli.engine.cuda.decode import BATCHES
from rwkv_cli.engine.cuda.program import shared_bytes
from rwkv_cli.native.library import is_available
from rwkv_cli.native.pack import TYPES

if compiler() is None or not is_available():
    pytest.skip("there is no C++ compiler, or no native library", allow_module_level=True)

THREADS = 256
PANEL, GROUP = 128, 32  # outputs
HALF_UNIT = 2.0**-24  # what a rounded float32 is off by, relative
WIDTHS = (96, 160, 320)  # of outputs: a part of a panel; one and more, whose last is not full
# Inputs, and those of a block: all; a last block with fewer; more than a block looks at at once.
CUTS = [(208, 208), (176, 64), (672, 336)]


class Values:
    """A random launch, with its result in float64.

    Args:
        density: The share of hidden numbers that are not zero.
        twins: Whether all sequences have their zeros in the same places.
    """

    def __init__(
        self,
        dtype: str,
        outputs: int,
        inputs: int,
        sequences: int = 1,
        *,
        density: float = 0.4,
        twins: bool = False,
    ) -> None:
        rng = np.random.default_rng(outputs + inputs)
        self.dtype, self.outputs, self.inputs = dtype, outputs, inputs
        self.weights, self.exact = matrix(rng, dtype, "panels", outputs, inputs)
        hidden = gaussian(rng, sequences, inputs) ** 2 + np.float32(0.1)
        kept = rng.random((1 if twins else sequences, inputs)) < density
        self.hidden = np.where(kept, hidden, np.float32(0))
        self.hidden[:, 5] *= -1  # a kernel for any inputs, and -0 is a zero
        self.x = gaussian(rng, sequences, outputs)
        self.gate = sigmoid(gaussian(rng, sequences, outputs)).astype(np.float32)
        self.finished = np.zeros(-(-outputs // PANEL) + 1, np.uint32)
        self.finished[-1] = 7  # nobody's

    def run(
        self,
        chunk: int,
        sequences: slice = slice(None),
        *,
        gated: bool = True,
        order: int | None = None,
    ) -> Floats:
        """Launch on all sequences or some: what the residual stream becomes."""
        x = self.x[sequences].copy()
        batch, panels, splits = len(x), -(-self.outputs // PANEL), -(-self.inputs // chunk)
        partial = poisoned(splits * batch * panels * PANEL + 16)
        launch(
            f"value_{batch}", "ValueArguments", (panels, splits, 1), THREADS,
            shared_bytes(4 * batch * chunk, 4 * 8 * batch * PANEL, 4), order=order,
            hidden=self.hidden[sequences], weights=self.weights, partial=partial,
            finished=self.finished, gate=self.gate[sequences] if gated else None, x=x,
            type=TYPES[self.dtype], inputs=self.inputs, outputs=self.outputs, chunk=chunk,
        )  # fmt: skip
        assert np.isnan(partial[-16:]).all()
        assert np.array_equal(self.finished, [0] * panels + [7])
        return x

    def check(self, got: Floats, chunk: int, *, gated: bool = True) -> None:
        """Compare with float64."""
        hidden, x, gate = wide(self.hidden, self.x, self.gate)
        gate = gate if gated else np.ones_like(gate)
        expected = x + gate * (hidden @ self.exact.T)
        # A thread adds up every 16th input of its block, then come 16 threads and the blocks; a
        # packed weight, the gate and the last sum are rounded once each.
        depth = min(chunk, self.inputs) / 16 + 8 + -(-self.inputs // chunk) + 3
        bound = depth * gate * (np.abs(hidden) @ np.abs(self.exact).T) + np.abs(expected) + abs(x)
        assert_within(got, expected, HALF_UNIT * bound)

    def poison(self) -> NDArray[np.intp]:
        """Make NaNs of the weights of inputs that are zero for every sequence: which they are."""
        skipped = np.flatnonzero((self.hidden == 0).all(0))
        for lines in self.lines():
            lines[skipped] = np.iinfo(lines.dtype).max
        return skipped

    def lines(self) -> list[Plane]:
        """Views of the weights, each (inputs, ...), whose NaNs are NaNs of weights."""
        if self.dtype in PLANES:
            return [self.weights.view(BITS[self.dtype])]
        found, place = [], 0
        for start in range(0, self.outputs, PANEL):
            width = min(PANEL, -(-(self.outputs - start) // GROUP) * GROUP)
            codes = self.inputs * (width if self.dtype == "int8" else width // 2)
            end = place + codes + self.inputs * width // GROUP * 2
            scales = self.weights[place + codes : end].view(np.int16)
            found.append(scales.reshape(self.inputs, width // GROUP))
            place = -(-end // 64) * 64
        assert place == self.weights.size
        return found


@pytest.mark.parametrize("sequences", BATCHES)
@pytest.mark.parametrize("outputs", WIDTHS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_gated_product_is_added_to_the_residual_stream(
    dtype: str, outputs: int, sequences: int
) -> None:
    for inputs, chunk in CUTS:
        case = Values(dtype, outputs, inputs, sequences)
        case.check(case.run(chunk), chunk)


@pytest.mark.parametrize("dtype", TYPES)
def test_without_a_gate_the_product_is_added_as_it_is(dtype: str) -> None:
    case = Values(dtype, 160, 208, 2)
    case.check(case.run(64, gated=False), 64, gated=False)


@pytest.mark.parametrize("density", [0, 0.01, 0.1, 0.9, 1])
@pytest.mark.parametrize("dtype", TYPES)
def test_weights_of_inputs_that_are_zero_are_not_read(dtype: str, density: float) -> None:
    for sequences, twins in ((1, False), (4, True), (8, False)):
        case = Values(dtype, 320, 672, sequences, density=density, twins=twins)
        skipped = case.poison()
        assert len(skipped) or density > 0.1 or sequences == 8
        for chunk in (64, 336):
            got = case.run(chunk)
            case.check(got, chunk)
            if density == 0:
                assert np.array_equal(got, case.x)


@pytest.mark.parametrize("dtype", TYPES)
def test_no_input_is_passed_over(dtype: str) -> None:
    case = Values(dtype, 96, 208, density=0)
    for place in range(0, 208, 3):
        case.hidden.fill(0)
        case.hidden[0, place] = 1e-30
        case.x.fill(0)
        got = case.run(64, gated=False)
        assert_within(got[0] * 1e30, case.exact[:, place], 1e-6 * np.abs(case.exact[:, place]))


def test_a_hidden_number_that_is_none_reaches_every_output() -> None:
    case = Values("fp16", 160, 176)
    case.hidden[0, 77] = np.nan
    assert np.isnan(case.run(64)).all()


@pytest.mark.parametrize("dtype", TYPES)
def test_a_sequence_among_eight_is_the_same_bits_as_among_fewer(dtype: str) -> None:
    case = Values(dtype, 320, 672, 8)
    eight = case.run(64)
    for fewer in (1, 2, 4):
        for start in range(0, 8, fewer):
            part = slice(start, start + fewer)
            assert np.array_equal(case.run(64, part), eight[part])


def test_the_block_that_ends_last_decides_nothing() -> None:
    case = Values("int8", 320, 672, 2)
    results: list[Any] = [case.run(64, order=order) for order in range(8)]
    assert all(np.array_equal(a, b) for a, b in itertools.pairwise(results))
