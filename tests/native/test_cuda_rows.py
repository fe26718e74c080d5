"""The CUDA kernels between the products of many tokens, on the CPU, against float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.cuda_host import compiler
from oracle.cuda_rows import (
    PLANES,
    SHAPES,
    Addresses,
    Floats,
    assert_close,
    gaussian,
    launch,
    numbers,
    owner,
    poisoned,
    poisoned_plane,
    sigmoid,
    starts,
    states,
    wide,
)

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")

THREADS = 256
OFFSET = 96  # floats of a state before the part that a kernel means
NORM_EPS, HEAD_EPS = 1e-5, 64e-5
ACTIVATIONS = {"none": 0, "tanh": 1, "sigmoid": 2, "relu2": 3, "silu": 4}


@dataclass
class Mixing:
    """A random case of rows_mix, with its results in float64."""

    sequences: int
    tokens: int
    width: int
    dtype: str = "fp32"
    planes: int = 3
    seed: int = 0
    x: Floats = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        rows = self.sequences * self.tokens
        shape = (rows, self.width)
        self.x, self.add, self.gate = (gaussian(rng, *shape, scale=2) for _ in range(3))
        self.scale = np.exp2(rng.integers(-3, 4, rows)).astype(np.float32)
        self.weight, self.bias = gaussian(rng, self.width), gaussian(rng, self.width)
        self.mix = [gaussian(rng, self.width) for _ in range(self.planes)]
        self.more = [gaussian(rng, *shape) for _ in range(self.planes)]
        self.before = [gaussian(rng, OFFSET + self.width) for _ in range(self.sequences)]
        self.after = [poisoned(OFFSET + self.width + 32) for _ in range(self.sequences)]
        self.x_out = poisoned(*shape)
        self.out = [poisoned_plane(self.dtype, *shape) for _ in range(self.planes)]

    def run(self, *, grid: int | None = None, **changes: Any) -> list[Floats]:
        """Launch with these arguments but for `changes`: the planes."""
        rows = self.sequences * self.tokens
        fields = {
            "residual": self.residual(),
            "x_out": self.x_out, "weight": self.weight, "bias": self.bias,
            "shift": states(self.before, self.after, OFFSET),
            "mix": self.mix, "more": self.more, "plane": self.out,
            "starts": starts(self.sequences, self.tokens),
            "owner": owner(self.sequences, self.tokens), "rows": rows, "width": self.width,
            "planes": self.planes, "plane_type": PLANES[self.dtype], "commit": 1,
        }  # fmt: skip
        shared = 2 * 4 * self.width + 2 * THREADS // 32 * 4
        fields.update(changes)
        launch("rows_mix", "RowsMixArguments", (grid or rows, 1, 1), THREADS, shared, **fields)
        return [numbers(plane, self.dtype) for plane in self.out]

    def residual(self) -> dict[str, Any]:
        return {"x": self.x, "add": self.add, "add_scale": self.scale, "add_gate": self.gate}

    def sums(self) -> NDArray[np.float64]:
        x, add, gate = wide(self.x, self.add, self.gate)
        return x + add * self.scale[:, None].astype(np.float64) * sigmoid(gate)

    def normed(self) -> NDArray[np.float64]:
        x = self.sums()
        centered = x - x.mean(1, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(1, keepdims=True) + NORM_EPS)
        return scaled * self.weight.astype(np.float64) + self.bias

    def delta(self) -> NDArray[np.float64]:
        normed = self.normed().reshape(self.sequences, self.tokens, self.width)
        first = np.stack(self.before)[:, None, OFFSET:].astype(np.float64)
        previous = np.concatenate((first, normed[:, :-1]), axis=1)
        return (previous - normed).reshape(-1, self.width)


@pytest.mark.parametrize("dtype", PLANES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_row_is_normalized_and_moved_towards_the_token_before(
    shape: tuple[int, int, int, int], dtype: str
) -> None:
    sequences, tokens, heads, size = shape
    case = Mixing(sequences, tokens, heads * size, dtype)
    planes = case.run(mix=[case.mix[0], case.mix[1], None], more=[case.more[0], None, None])
    normed, delta = case.normed(), case.delta()
    assert_close(case.x_out, case.sums())
    assert_close(planes[0], normed + delta * (case.mix[0] + wide(case.more[0])[0]), dtype, 3e-5)
    assert_close(planes[1], normed + delta * case.mix[1], dtype, 3e-5)
    assert_close(planes[2], normed, dtype)
    for sequence, state in enumerate(case.after):
        assert_close(state[OFFSET:-32], normed[(sequence + 1) * tokens - 1])
        assert np.isnan(state[:OFFSET]).all()
        assert np.isnan(state[-32:]).all()


def test_six_planes_can_be_written_at_once() -> None:
    case = Mixing(2, 3, 192, planes=6)
    planes = case.run(more=[None] * 6)
    for plane, mix in zip(planes, case.mix, strict=True):
        assert_close(plane, case.normed() + case.delta() * mix, absolute=3e-5)


def test_a_state_is_left_alone_unless_it_is_committed() -> None:
    case = Mixing(2, 3, 192)
    case.run(commit=0)
    assert np.isnan(np.stack(case.after)).all()


def test_one_token_may_advance_a_state_in_place() -> None:
    apart, together = Mixing(3, 1, 320), Mixing(3, 1, 320)
    expected = apart.run()
    got = together.run(shift=states(together.before, together.before, OFFSET))
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))
    for a, b in zip(apart.after, together.before, strict=True):
        assert np.array_equal(a[OFFSET:-32], b[OFFSET:])


@pytest.mark.parametrize(
    "missing", [("add", "add_scale", "add_gate"), ("add_scale",), ("add_gate",)], ids=str
)
def test_a_product_that_is_missing_adds_nothing_and_a_factor_that_is_missing_is_one(
    missing: tuple[str, ...],
) -> None:
    case = Mixing(2, 3, 192)
    residual = case.residual() | dict.fromkeys(missing)
    case.run(residual=residual)
    x, add, gate = wide(case.x, case.add, case.gate)
    scale = 1 if "add_scale" in missing else case.scale[:, None]
    gate = 1 if "add_gate" in missing else sigmoid(gate)
    assert_close(case.x_out, x + (0 if "add" in missing else add * scale * gate))


def test_a_final_norm_has_no_states_and_writes_no_residual_stream() -> None:
    case = Mixing(1, 5, 320, planes=1)
    shift = {"before": None, "after": None, "offset": 0}
    planes = case.run(shift=shift, mix=[None], more=[None], x_out=None, commit=0)
    assert_close(planes[0], case.normed())
    assert np.isnan(case.x_out).all()


def test_rows_are_the_same_bits_under_every_grid_and_beside_every_neighbour() -> None:
    case = Mixing(3, 7, 192)
    whole = [plane.copy() for plane in case.run()]
    for grid in (1, 4, 50):
        for plane in case.out:
            plane.fill(0xFFFFFFFF)
        assert all(map(np.array_equal, whole, case.run(grid=grid)))
    alone = Mixing(3, 7, 192)
    alone.sequences = 1
    third = slice(14, 21)
    residual = {name: array[third].copy() for name, array in alone.residual().items()}
    planes = alone.run(
        residual=residual,
        shift=states(case.before[2:], alone.after[2:], OFFSET),
        more=[more[third].copy() for more in case.more],
    )
    assert all(np.array_equal(a[third], b[:7]) for a, b in zip(whole, planes, strict=True))


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_prompt_may_be_cut_anywhere(cut: int) -> None:
    whole = Mixing(1, 7, 192)
    expected = [plane.copy() for plane in whole.run()]
    state = whole.before
    for part in (slice(0, cut), slice(cut, 7)):
        case = Mixing(1, 7, 192)
        case.tokens = part.stop - part.start
        residual = {name: array[part].copy() for name, array in case.residual().items()}
        planes = case.run(
            residual=residual,
            shift=states(state, case.after, OFFSET),
            more=[more[part].copy() for more in whole.more],
        )
        state = [case.after[0]]
        assert all(
            np.array_equal(a[part], b[: case.tokens]) for a, b in zip(expected, planes, strict=True)
        )


def test_sequences_may_have_different_lengths_and_rows_no_sequence() -> None:
    lengths, rows = [1, 4, 0, 2], 9
    whole = Mixing(4, 3, 192)
    begin = np.array([0, 1, 5, 5, 7], np.int32)
    whose = np.array([0, 1, 1, 1, 1, 3, 3, -1, -1], np.int32)
    planes = [plane[:rows].copy() for plane in whole.run(starts=begin, owner=whose, rows=rows)]
    for sequence, length in enumerate(lengths):
        if length == 0:
            assert np.isnan(whole.after[sequence]).all()
            continue
        part = slice(begin[sequence], begin[sequence] + length)
        alone = Mixing(4, 3, 192)
        alone.sequences, alone.tokens = 1, length
        expected = alone.run(
            residual={name: array[part].copy() for name, array in whole.residual().items()},
            shift=states(whole.before[sequence:], alone.after, OFFSET),
            more=[more[part].copy() for more in whole.more],
        )
        assert all(
            np.array_equal(a[part], b[:length]) for a, b in zip(planes, expected, strict=True)
        )
        assert np.array_equal(whole.after[sequence], alone.after[0], equal_nan=True)
    assert_close(planes[0][7:], whole.normed()[7:9])  # mixed with nothing


def test_the_last_row_of_each_sequence_is_gathered() -> None:
    case = Mixing(3, 7, 320)
    for grid in (1, 3):
        out = poisoned(3, 320)
        sizes = {"sequences": 3, "starts": starts(3, 7), "width": 320}
        launch(
            "rows_last",
            "RowsLastArguments",
            (grid, 1, 1),
            THREADS,
            residual=case.residual(),
            out=out,
            **sizes,
        )
        assert_close(out, case.sums()[6::7])


def test_rows_are_copied_to_memory_of_their_own() -> None:
    rows = gaussian(np.random.default_rng(3), 3, 1001)
    copies = [poisoned(1001 + 7) for _ in rows]
    launch(
        "rows_copy", "RowsCopyArguments", (3, 2, 1), THREADS,
        **{"from": rows}, to=Addresses(copies), width=1001,
    )  # fmt: skip
    for row, copy in zip(rows, copies, strict=True):
        assert np.array_equal(copy[:1001], row)
        assert np.isnan(copy[1001:]).all()


def activated(x: Floats, name: str) -> NDArray[np.float64]:
    wide_x = x.astype(np.float64)
    return {
        "none": lambda: wide_x,
        "tanh": lambda: np.tanh(wide_x),
        "sigmoid": lambda: sigmoid(wide_x),
        "relu2": lambda: np.maximum(wide_x, 0) ** 2,
        "silu": lambda: wide_x * sigmoid(wide_x),
    }[name]()


@pytest.mark.parametrize("dtype", PLANES)
@pytest.mark.parametrize("rows", [1, 33])
def test_columns_of_products_become_planes_padded_with_zeros(rows: int, dtype: str) -> None:
    rng = np.random.default_rng(1)
    product = gaussian(rng, rows, 5 * 12, scale=3)  # five low ranks of 12 side by side
    alone = gaussian(rng, rows, 96)
    parts = [(product[:, 12 * i :], 60, 12, name) for i, name in enumerate(ACTIVATIONS)][:4]
    parts.append((alone, 96, 96, "silu"))
    planes = [poisoned_plane(dtype, rows, -(-width // 8) * 8) for _, _, width, _ in parts]
    segments = [
        {"in": x, "plane": plane, "stride": stride, "width": width, "activation": ACTIVATIONS[name]}
        for (x, stride, width, name), plane in zip(parts, planes, strict=True)
    ]
    for grid in (1, 3, 9):
        launch(
            "rows_activate", "RowsActivateArguments", (grid, len(parts), 1), THREADS,
            segment=segments, rows=rows, plane_type=PLANES[dtype],
        )  # fmt: skip
        for (x, _, width, name), plane in zip(parts, planes, strict=True):
            assert_close(numbers(plane, dtype)[:, :width], activated(x[:, :width], name), dtype)
            assert not plane[:, width:].any()
            plane.fill(np.iinfo(plane.dtype).max)


def relu2(x: Floats, dtype: str, grid: int) -> tuple[NDArray[np.float64], Floats]:
    """Launch rows_relu2: the plane and the scales."""
    plane, scale = poisoned_plane(dtype, *x.shape), poisoned(len(x))
    launch(
        "rows_relu2", "RowsRelu2Arguments", (grid, 1, 1), THREADS, THREADS // 32 * 4,
        **{"in": x}, plane=plane, scale=scale, rows=len(x), width=x.shape[1],
        plane_type=PLANES[dtype],
    )  # fmt: skip
    return numbers(plane, dtype).astype(np.float64), scale


@pytest.mark.parametrize("dtype", PLANES)
@pytest.mark.parametrize("width", [32, 672, 2080])
def test_squares_of_any_size_fit_a_plane_under_a_power_of_two(width: int, dtype: str) -> None:
    sizes = np.array([1, 1e-16, 1e-3, 300, 5e4, 1e10, 1e18, 1e-18, 1e-21], np.float32)
    x = gaussian(np.random.default_rng(2), len(sizes), width) * sizes[:, None]
    x[0, 7] = 64  # an exact power of two
    expected = activated(x, "relu2")
    peak = expected.max(1, keepdims=True)
    for grid in (len(sizes), 2):
        got, scale = relu2(x, dtype, grid)
        assert_close(got[:-1] * scale[:-1, None] / peak[:-1], expected[:-1] / peak[:-1], dtype)
        assert np.array_equal(np.frexp(scale)[0], np.full(len(sizes), 0.5))
        assert np.all(got < 65504) or dtype == "fp32"
        if dtype != "fp32":  # the last two have squares too small for a scale that suits them
            assert np.all((got.max(1)[:-2] >= 2**11) & (got.max(1)[:-2] <= 2**12))
        else:
            assert np.all(scale == 1)


@pytest.mark.parametrize("dtype", PLANES)
def test_a_row_without_positive_numbers_has_the_scale_one(dtype: str) -> None:
    x = np.zeros((3, 64), np.float32)
    x[1] = -(gaussian(np.random.default_rng(3), 64) ** 2)
    x[2, 5] = 1e-30  # its square is no number of float32
    got, scale = relu2(x, dtype, 3)
    assert not got.any()
    assert np.all(scale == 1)
