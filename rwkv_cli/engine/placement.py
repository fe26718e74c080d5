"""Which form each tensor of a model takes for the C++ engine; imports neither numpy nor the
library.

The forms are those of native/src/formats.h: "rows" for matrices that every token multiplies whole,
"panels" for the one whose inputs are often zero and for low-rank factors.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from rwkv_cli.arch.spec import GLOBAL_PARAMS, Arch, Dims, alternatives
from rwkv_cli.checkpoints.tensors import RawTensor

QUANTIZED = ("int8", "int4")
FLOATS = ("fp32", "bf16", "fp16")

_NATURAL = {"F32": "fp32", "F64": "fp32", "BF16": "bf16", "F16": "fp16"}
_FIRST = ("emb.weight", "blocks.0.ln0.weight", "blocks.0.ln0.bias")
FLOAT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_GROUP, _PANEL, _BLOCK_ROWS, _BLOCK_COLS = 32, 128, 16, 64
_BLOCK = {"int8": 1088, "int4": 576}  # bytes
_HEAD_SIZES = (16, 32, 64, 128)  # that native/src/recurrence.inl is compiled for
_STEP = 32  # widths must be a multiple of it there


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a tensor goes.

    Attributes:
        name: Under BlinkDL's names.
        role: "vector" (always float32), "state" (a tuned starting state, float32), "embedding"
            (read a row at a time, never quantized), "matrix", or "fine" (one of at least 8 bits).
        layout: "rows" or "panels".
        rows: Outputs; the numbers of a vector.
        cols: Inputs; 1 for a vector.
        transposed: The checkpoint has inputs as rows.
        shape: As the tables have it, axes of size 1 dropped.
    """

    name: str
    role: str
    layout: str
    rows: int
    cols: int
    transposed: bool
    shape: tuple[int, ...]


def placements(arch: Arch, dims: Dims, names: Collection[str]) -> Iterator[Placement]:
    """Place every tensor of a model that has these names, in the order a token needs them."""
    for name in _FIRST:
        yield _place(name, GLOBAL_PARAMS[name], dims)
    for layer in range(dims.layers):
        for key, axes in arch.params.items():
            for option in alternatives(key)[1]:
                name = f"blocks.{layer}.{option}"
                if name in names:
                    yield _place(name, axes, dims)
    for name, axes in GLOBAL_PARAMS.items():
        if name not in _FIRST:
            yield _place(name, axes, dims)


def _place(name: str, axes: str, dims: Dims) -> Placement:
    letters, shape = axes.split(), dims.shape(axes)
    if len(shape) == 1 or "H" in letters:
        role = "state" if name.endswith("time_state") else "vector"
        return Placement(name, role, "rows", prod(shape), 1, False, shape)
    if not name.endswith(".weight"):  # low rank: (inputs, outputs), of v6 five such side by side
        return Placement(name, "fine", "panels", shape[-1], prod(shape[:-1]), True, shape)
    role = {"emb.weight": "embedding", "head.weight": "fine"}.get(name, "matrix")
    layout = "panels" if name.endswith("ffn.value.weight") else "rows"
    return Placement(name, role, layout, shape[0], shape[1], False, shape)


def natural_floats(raw: RawTensor) -> str:
    """Name the float precision that a tensor is kept in when nobody asks for another; fp16 for one
    of fewer bits.
    """
    return "fp16" if raw.coding else _NATURAL.get(raw.dtype, "fp16")


def is_coded(tensors: Mapping[str, RawTensor]) -> bool:
    """Tell whether any matrix of a file has fewer bits than a float."""
    return any(raw.coding for raw in tensors.values())


def why_unsupported(dims: Dims) -> str | None:
    """Say what the native engine has no code for; None when it runs the model."""
    width = next((dims.letters[w] for w in "CA" if dims.letters[w] % _STEP), None)
    if width:
        return f"the native engine needs widths that are multiples of {_STEP}, this has {width}"
    size = dims.letters.get("N", _HEAD_SIZES[0])
    if size not in _HEAD_SIZES:
        return f"the native engine has no code for heads of {size} channels"
    return None


def wanted(place: Placement, stored: str, dtype: str | None) -> str:
    """Give the precision that a tensor is wanted in.

    Args:
        place: Where it goes.
        stored: How the checkpoint has it: F32, F64, BF16, F16, or a coding of fewer bits.
        dtype: What was asked for; None keeps the precision of the file.
    """
    if place.role in ("vector", "state"):
        return "fp32"
    if place.role == "embedding" and dtype in (None, *QUANTIZED):
        return _NATURAL.get(stored, "fp16")
    if dtype is None:
        return _NATURAL.get(stored, "int8")
    return "int8" if dtype == "int4" and place.role == "fine" else dtype


def allowed(place: Placement, dtype: str) -> tuple[str, ...]:
    """List the precisions that a tensor may have in a file packed in one."""
    if place.role in ("vector", "state"):
        return ("fp32",)
    if place.role == "embedding":
        return FLOATS if dtype in QUANTIZED else (dtype, "bf16")
    return (wanted(place, "BF16", dtype), "bf16")


def packed_size(place: Placement, dtype: str) -> int:
    """Give the bytes of a tensor in a precision: rwkv_packed_bytes of the library."""
    rows, cols = place.rows, place.cols
    if place.layout == "panels":
        full, rest = divmod(rows, _PANEL)
        return full * _panel_bytes(dtype, _PANEL, cols) + (
            _panel_bytes(dtype, _round_up(rest, _GROUP), cols) if rest else 0
        )
    if dtype in FLOAT_BYTES:
        return rows * cols * FLOAT_BYTES[dtype]
    return _BLOCK[dtype] * -(-rows // _BLOCK_ROWS) * -(-cols // _BLOCK_COLS)


def _panel_bytes(dtype: str, width: int, cols: int) -> int:
    scales = 2 * width // _GROUP
    line = {"int8": width + scales, "int4": width // 2 + scales}.get(dtype)
    return _round_up(cols * (line or width * FLOAT_BYTES[dtype]), 64)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
