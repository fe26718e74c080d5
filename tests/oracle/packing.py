"""Packed matrices as native/src/formats.h describes them, read by numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CODEBOOK = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])
GROUP, PANEL = 32, 128


def as_float(bits: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """Give stored float numbers as float32."""
    raw = bits.view(np.uint8)
    if dtype == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return raw.view(np.float16 if dtype == "fp16" else np.float32).astype(np.float32)


def from_float(x: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Round float32 to a float type, to nearest even."""
    if dtype == "bf16":
        bits = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    with np.errstate(over="ignore"):
        return x.astype(np.float16 if dtype == "fp16" else np.float32)


def unpacked(
    data: NDArray[np.uint8], dtype: str, layout: str, rows: int, cols: int
) -> NDArray[np.float32]:
    """Read a packed matrix: (rows, cols)."""
    if layout == "panels":
        return _from_panels(data, dtype, rows, cols)
    if dtype not in ("int8", "int4"):
        return as_float(data, dtype).reshape(rows, cols)
    return _from_blocks(data, dtype, rows, cols)


def _from_blocks(data: NDArray[np.uint8], dtype: str, rows: int, cols: int) -> NDArray[np.float32]:
    down, across = -(-rows // 16), -(-cols // 64)
    blocks = data.reshape(down, across, -1)
    scales = blocks[..., :64].copy().view(np.float16).reshape(down, across, 2, 16)
    codes = blocks[..., 64:]
    if dtype == "int8":  # [16 fours of columns][16 rows][4]
        whole = codes.reshape(down, across, 16, 16, 4).astype(np.float32) - 128
        weights = whole.transpose(0, 3, 1, 2, 4)
    else:  # [2 halves][4 fours of columns][16 rows][4], two columns a byte
        packed = codes.reshape(down, across, 2, 4, 16, 4)
        both = np.stack([CODEBOOK[packed & 15], CODEBOOK[packed >> 4]], axis=3)
        weights = both.astype(np.float32).transpose(0, 5, 1, 2, 3, 4, 6)
    grouped = weights.reshape(down, 16, across, 2, GROUP)
    scaled = grouped * scales.astype(np.float32).transpose(0, 3, 1, 2)[..., None]
    return scaled.reshape(down * 16, across * 64)[:rows, :cols]


def _from_panels(data: NDArray[np.uint8], dtype: str, rows: int, cols: int) -> NDArray[np.float32]:
    panels, place = [], 0
    for start in range(0, rows, PANEL):
        width = min(PANEL, -(-(rows - start) // GROUP) * GROUP)
        weights, used = _panel(data[place:], dtype, width, cols)
        place += -(-used // 64) * 64
        panels.append(weights.T)
    assert place == data.size
    return np.concatenate(panels)[:rows]


def _panel(
    data: NDArray[np.uint8], dtype: str, width: int, cols: int
) -> tuple[NDArray[np.float32], int]:
    """Read one panel: (cols, width), and the bytes it takes without its padding."""
    if dtype not in ("int8", "int4"):
        used = cols * width * (4 if dtype == "fp32" else 2)
        return as_float(data[:used], dtype).reshape(cols, width), used
    line = width if dtype == "int8" else width // 2
    codes, groups = data[: cols * line], width // GROUP
    used = cols * (line + 2 * groups)
    scales = data[cols * line : used].copy().view(np.float16).reshape(cols, groups, 1)
    if dtype == "int8":
        weights = codes.view(np.int8).reshape(cols, groups, GROUP).astype(np.float32)
    else:
        packed = codes.reshape(cols, groups, 1, 16)
        both = np.concatenate([CODEBOOK[packed & 15], CODEBOOK[packed >> 4]], axis=2)
        weights = both.reshape(cols, groups, GROUP).astype(np.float32)
    return (weights * scales.astype(np.float32)).reshape(cols, width), used
