"""Packing obeys native/src/formats.h, keeps within its error, and refuses what has no code."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.packing import CODEBOOK, as_float, from_float, unpacked

from rwkv_cli.native.library import NativeError, is_available
from rwkv_cli.native.pack import LAYOUTS, TYPES, Matrix, UnpackableError, pack, packed_bytes, unpack
from rwkv_cli.native.pool import Pool

pytestmark = pytest.mark.skipif(not is_available(), reason="there is no native library")

Floats = NDArray[np.float32]

SHAPES = [(1, 1), (1, 70), (33, 31), (128, 64), (130, 65), (16, 1024), (257, 40), (31, 700)]
BOUNDS = {"fp32": 0.0, "bf16": 0.002, "fp16": 0.0003, "int8": 0.0075, "int4": 0.09}
STORED = {"F32": "fp32", "BF16": "bf16", "F16": "fp16"}


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(2)


def gaussian(rows: int, cols: int, seed: int = 0) -> Floats:
    return (np.random.default_rng(seed).standard_normal((rows, cols)) * 0.02).astype(np.float32)


def packed(
    pool: Pool, x: Floats, dtype: str, layout: str, *, transposed: bool = False
) -> tuple[NDArray[np.uint8], float]:
    """Pack float32: the bytes and the error."""
    rows, cols = x.shape[::-1] if transposed else x.shape
    target = np.full(packed_bytes(dtype, layout, rows, cols), 0xA5, np.uint8)
    matrix = Matrix(np.ascontiguousarray(x), "F32", rows, cols, transposed)
    return target, pack(pool, matrix, dtype, layout, target)


def relative(x: Floats, y: Floats) -> float:
    return float(np.linalg.norm(x.astype(np.float64) - y) / np.linalg.norm(x.astype(np.float64)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_packed_matrix_reads_as_the_format_says(
    pool: Pool, dtype: str, layout: str, shape: tuple[int, int]
) -> None:
    x = gaussian(*shape)
    data, error = packed(pool, x, dtype, layout)
    oracle = unpacked(data, dtype, layout, *shape)
    assert np.array_equal(unpack(data, dtype, layout, shape), oracle)
    assert relative(x, oracle) <= BOUNDS[dtype] * (1 if x.size > 200 else 2)
    if dtype in ("int8", "int4"):
        assert error == pytest.approx(relative(x, oracle), rel=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_transposed_source_gives_the_same_bytes(pool: Pool, dtype: str, layout: str) -> None:
    for shape in SHAPES:
        x = gaussian(*shape)
        straight, _ = packed(pool, x, dtype, layout)
        turned, _ = packed(pool, x.T, dtype, layout, transposed=True)
        assert np.array_equal(straight, turned)


@pytest.mark.parametrize("dtype", TYPES)
def test_what_lies_beyond_the_matrix_is_zero(pool: Pool, dtype: str) -> None:
    data, _ = packed(pool, gaussian(130, 65), dtype, "panels")
    whole = unpacked(data, dtype, "panels", 160, 65)
    assert not whole[130:].any() or dtype == "int4"  # no code of int4 is zero
    if dtype in ("int8", "int4"):
        blocks, _ = packed(pool, gaussian(30, 65), dtype, "rows")
        assert not unpacked(blocks, dtype, "rows", 32, 128)[30:].any()
        assert not unpacked(blocks, dtype, "rows", 32, 128)[:, 96:].any()


@pytest.mark.parametrize("stored", ["F32", "BF16", "F16", "F64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_source_of_any_type_at_any_address_is_read(
    pool: Pool, dtype: str, layout: str, stored: str
) -> None:
    x = gaussian(130, 70)
    kept = x.astype(np.float64) if stored == "F64" else from_float(x, STORED[stored])
    exact = x if stored == "F64" else as_float(kept, STORED[stored]).reshape(x.shape)
    shifted = np.empty(kept.nbytes + 1, np.uint8)[1:]
    shifted[:] = kept.view(np.uint8).ravel()
    target = np.empty(packed_bytes(dtype, layout, 130, 70) + 1, np.uint8)[1:]
    pack(pool, Matrix(shifted, stored, 130, 70), dtype, layout, target)
    assert np.array_equal(target, packed(pool, exact, dtype, layout)[0])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_float_types_round_to_nearest_even(pool: Pool, dtype: str, layout: str) -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 1 << 32, (64, 128), dtype=np.uint32)
    x = bits.view(np.float32)
    x = np.where(np.abs(x) < (6e4 if dtype == "fp16" else 3e38), x, np.float32(1e-7))
    x[0, :4] = [1 + 2**-8, 1 + 3 * 2**-8, 2.0**-25, 3 * 2.0**-25]
    data, _ = packed(pool, x, dtype, layout)
    wanted = as_float(from_float(x, dtype), dtype).reshape(x.shape)
    assert np.array_equal(unpack(data, dtype, layout, x.shape), wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "tail", "bound"), [("int8", 8, 0.0065), ("int4", 8, 0.081)])
def test_heavy_tails_stay_within_the_error(
    pool: Pool, dtype: str, layout: str, tail: int, bound: float
) -> None:
    x = np.random.default_rng(2).standard_t(tail, (512, 512)).astype(np.float32)
    assert packed(pool, x, dtype, layout)[1] <= bound


def test_int4_is_as_good_on_gaussian_weights_as_its_design_says(pool: Pool) -> None:
    assert packed(pool, gaussian(512, 512), "int4", "rows")[1] <= 0.0740


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packing_again_what_was_unpacked_changes_nothing(pool: Pool, layout: str) -> None:
    x = gaussian(256, 256)
    for dtype, bound in (("int8", 0.0), ("int4", 0.005)):
        once, _ = packed(pool, x, dtype, layout)
        again, error = packed(pool, unpack(once, dtype, layout, x.shape), dtype, layout)
        assert error <= bound
        if dtype == "int8":
            assert np.array_equal(once, again)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_every_code_is_the_nearest_under_its_scale(pool: Pool, dtype: str, layout: str) -> None:
    x = gaussian(128, 128)
    y = unpack(packed(pool, x, dtype, layout)[0], dtype, layout, x.shape)
    steps = CODEBOOK if dtype == "int4" else np.arange(-127, 128)
    groups = x.reshape(-1, 32) if layout == "rows" else x.T.reshape(-1, 32)
    coded = y.reshape(-1, 32) if layout == "rows" else y.T.reshape(-1, 32)
    for numbers, taken in zip(groups[:200], coded[:200], strict=True):
        scale = _scale_of(taken, steps)
        best = np.abs(numbers[:, None] - steps * scale).min(axis=1)
        assert np.all(np.abs(numbers - taken) <= best * (1 + 1e-4) + 1e-9)


def _scale_of(taken: Floats, steps: NDArray[np.int64]) -> np.float32:
    """Find the scale under which all numbers of a group are steps."""
    peak = taken[np.abs(taken).argmax()]
    tried = [np.float32(peak / step) for step in steps if step]
    off = [np.abs(taken[:, None] - steps * scale).min(axis=1).max() / abs(peak) for scale in tried]
    fits = [s for s, o in zip(tried, off, strict=True) if o < 1e-5]
    assert fits
    return min(fits, key=abs) if len(steps) < 20 else max(fits, key=abs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_zero_and_vanishing_groups_become_zero(pool: Pool, dtype: str, layout: str) -> None:
    for value in (0.0, 1e-44, 1e-38, 1e-12):
        x = np.full((40, 70), value, np.float32)
        data, error = packed(pool, x, dtype, layout)
        assert not unpack(data, dtype, layout, x.shape).any()
        assert error == pytest.approx(1.0 if value else 0.0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_groups_under_the_smallest_scales_are_not_cut(pool: Pool, dtype: str, layout: str) -> None:
    x = gaussian(64, 64) * np.float32(1e-3)
    _, error = packed(pool, x, dtype, layout)
    assert error < 0.2  # scales of float16 are coarse there, and the caller sees it in the error


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_no_code_stands_for_is_refused(
    pool: Pool, dtype: str, layout: str, value: float
) -> None:
    x = gaussian(130, 130)
    x[77, 100] = value
    with pytest.raises(UnpackableError, match="NaN" if value != 3e38 else "too large"):
        packed(pool, x, dtype, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float16_refuses_what_it_cannot_hold_and_keeps_an_infinity(pool: Pool, layout: str) -> None:
    x = gaussian(130, 130)
    x[7, 9] = np.inf
    assert unpack(packed(pool, x, "fp16", layout)[0], "fp16", layout, x.shape)[7, 9] == np.inf
    x[7, 9] = 65520
    with pytest.raises(UnpackableError, match="float16"):
        packed(pool, x, "fp16", layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_any_number_of_threads_writes_the_same(dtype: str, layout: str) -> None:
    x = gaussian(300, 1500)
    results = [packed(Pool(threads), x, dtype, layout) for threads in (1, 2, 5)]
    for data, error in results[1:]:
        assert np.array_equal(data, results[0][0])
        assert error == results[0][1]


def test_a_group_shares_nothing_with_its_neighbours(pool: Pool) -> None:
    x = gaussian(64, 128)
    before = unpack(packed(pool, x, "int4", "rows")[0], "int4", "rows", x.shape)
    x[20, 40] = 5.0
    after = unpack(packed(pool, x, "int4", "rows")[0], "int4", "rows", x.shape)
    changed = np.argwhere(before != after)
    assert set(changed[:, 0]) == {20}
    assert {int(c) // 32 for c in changed[:, 1]} == {1}


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (-1, 5), (1 << 39, 1 << 39), (1 << 62, 4)])
def test_sizes_that_make_no_sense_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(NativeError, match="matrix"):
        packed_bytes("int8", "rows", *sizes)


def test_a_buffer_that_is_too_small_is_refused(pool: Pool) -> None:
    x = gaussian(32, 64)
    with pytest.raises(NativeError, match="needs"):
        pack(pool, Matrix(x, "F32", 32, 64), "int8", "rows", np.empty(100, np.uint8))
    with pytest.raises(NativeError, match="bytes"):
        pack(pool, Matrix(x, "F32", 32, 65), "int8", "rows", np.empty(10_000, np.uint8))
    with pytest.raises(NativeError, match="cut short"):
        unpack(np.empty(100, np.uint8), "int8", "rows", (32, 64))
