"""The CUDA kernels that unpack matrices give what the formats say, in every type of plane."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.cuda_host import compiler
from oracle.cuda_rows import PLANES, gaussian, launch, poisoned_plane
from oracle.packing import from_float

from rwkv_cli.native.library import is_available
from rwkv_cli.native.pack import TYPES, Matrix, pack, packed_bytes, unpack
from rwkv_cli.native.pool import Pool

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"),
    pytest.mark.skipif(not is_available(), reason="there is no native library"),
]

SHAPES = [(1, 1), (192, 320), (320, 192), (33, 31), (130, 65), (257, 40), (16, 1024), (12, 320)]


def packed(dtype: str, layout: str, rows: int, cols: int) -> NDArray[np.uint8]:
    """A random matrix, at an address that is a multiple of 64 bytes."""
    size = packed_bytes(dtype, layout, rows, cols)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    target = memory[start : start + size]
    x = gaussian(np.random.default_rng(rows), rows, cols, scale=0.02)
    pack(Pool(1), Matrix(x, "F32", rows, cols), dtype, layout, target)
    return target


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["rows", "panels"])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_an_unpacked_matrix_is_the_rounded_one(
    dtype: str, layout: str, shape: tuple[int, int]
) -> None:
    rows, cols = shape
    data = packed(dtype, layout, rows, cols)
    exact = unpack(data, dtype, layout, shape)
    lines = np.ascontiguousarray(exact if layout == "rows" else exact.T)  # panels: inputs first
    panels = -(-rows // 128)
    grids = (
        [(1, 1, 1), (4, 3, 1), (200, 2, 1)]
        if layout == "rows"
        else [(1, panels, 1), (9, panels, 1)]
    )
    for plane_type, number in PLANES.items():
        for grid in grids:
            plane = poisoned_plane(plane_type, lines.size + 32)
            launch(
                f"unpack_{layout}", "UnpackArguments", grid, 256, matrix=data, plane=plane,
                rows=rows, cols=cols, type=TYPES[dtype], plane_type=number,
            )  # fmt: skip
            wanted = from_float(lines, plane_type).ravel().view(plane.dtype)
            assert np.array_equal(plane[: lines.size], wanted)
            assert np.all(plane[lines.size :] == np.iinfo(plane.dtype).max)
