"""Tensors of a checkpoint in the forms that the C++ engine reads; what can be used in place is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rwkv_cli.checkpoints.precision import widened
from rwkv_cli.checkpoints.tensors import RawTensor
from rwkv_cli.engine.modelfile import ModelFile, check_precision
from rwkv_cli.engine.placement import QUANTIZED, Placement, placements, wanted
from rwkv_cli.errors import LimitError
from rwkv_cli.native.model import NativeTensor
from rwkv_cli.native.pack import LAYOUTS, TYPES, Matrix, UnpackableError, pack, packed_bytes
from rwkv_cli.native.pool import Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

Progress = Callable[[int], None]

ALIGNMENT = 64  # of everything that is not used in place
# A tensor whose relative error is larger stays in 16 bits.
ERROR_BOUNDS = {"int8": 0.0075, "int4": 0.09}

# Elements that are converted at once where a tensor is derived in parts; rows of a packed block.
_LARGE, _BLOCK_ROWS = 1 << 20, 16

_STORED = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tensor ready for the engine.

    Attributes:
        place: What it is.
        dtype: The precision it has.
        data: Its bytes, in the file or in memory of their own.
        error: Relative error of its quantization; of one that was given up, the error that was too
            large, or 1 when no code stands for its numbers; None where nothing was quantized.
    """

    place: Placement
    dtype: str
    data: memoryview
    error: float | None = None

    @property
    def tensor(self) -> NativeTensor:
        """As the library takes it; bytes that lie in a file stay a memoryview."""
        place, data = self.place, self.data
        return NativeTensor(
            place.name,
            TYPES[self.dtype],
            LAYOUTS[place.layout],
            place.rows,
            place.cols,
            data.obj if isinstance(data.obj, np.ndarray) else data,
        )


def load_tensors(
    file: ModelFile, dtype: str | None, pool: Pool, progress: Progress | None = None
) -> list[NativeTensor]:
    """Prepare a whole model.

    Args:
        file: An open weights file.
        dtype: "fp32", "bf16", "fp16", "int8" or "int4" for the matrices; None keeps the precision
            of the file. Vectors are always float32.
        pool: Threads that do it.
        progress: Called with the bytes of each tensor of the file as it is ready.

    Raises:
        LimitError: There is not enough memory.
        UsageError: The file is packed in another precision.
    """
    try:
        ready = prepared(file, dtype, pool, progress)
        return [one.tensor for one in ready if one.place.role != "state"]
    except (MemoryError, LimitError) as error:
        raise LimitError(
            f"{file.checkpoint.path}: not enough memory to load it",
            hint="a smaller precision needs less: --dtype int8",
        ) from error


def prepared(
    file: ModelFile, dtype: str | None, pool: Pool, progress: Progress | None = None
) -> Iterator[Prepared]:
    """Prepare one tensor after another, in the order a token needs them.

    Raises:
        LimitError: There is not enough memory.
        UsageError: The file is packed in another precision.
    """
    check_precision(file, dtype)
    raws = file.checkpoint.tensors
    for place in placements(file.arch, file.dims, raws.keys()):
        raw = raws[place.name]
        if file.packed:
            kept = file.packed.tensors[place.name]
            yield Prepared(place, kept.dtype, raw.data[: kept.nbytes], kept.error)
        else:
            stored = raw.coding or raw.dtype
            prepare = _prepare_in_parts if _is_large(place, raw) else _prepare
            one = prepare(place, raw, wanted(place, stored, dtype), pool)
            if one.data is not raw.data:
                file.checkpoint.release(raw)
            yield one
        if progress:
            progress(raw.nbytes)


def start_state(file: ModelFile) -> dict[int, Float32s]:
    """Give the starting state that was tuned into a model, if there is one: layer to (H, N, N)
    float32.
    """
    shape = file.dims.shape("H N N") if "H" in file.dims.letters else ()
    found = {}
    for layer in range(file.dims.layers):
        raw = file.checkpoint.tensors.get(f"blocks.{layer}.att.time_state")
        if raw is not None and shape:
            found[layer] = _numbers(file, raw).reshape(shape)
    return found


def _numbers(file: ModelFile, raw: RawTensor) -> Float32s:
    """Read a small tensor as float32."""
    if file.packed:
        data = raw.data[: file.packed.tensors[raw.name].nbytes]
        return np.frombuffer(data, np.float32).copy()
    return np.array(widened(raw.plain().data, raw.dtype))


def _prepare(place: Placement, raw: RawTensor, dtype: str, pool: Pool) -> Prepared:
    """Convert a tensor, or use it where it lies; one that cannot be converted well stays bf16."""
    raw = raw.plain()
    matrix = Matrix(raw.data, raw.dtype, place.rows, place.cols, place.transposed)
    in_place = place.layout == "rows" and raw.dtype == _STORED.get(dtype)
    if in_place and place.role not in ("vector", "state"):
        return Prepared(place, dtype, raw.data)
    try:
        data, error = _packed(place, matrix, dtype, pool)
    except UnpackableError:
        data, error = memoryview(b""), 1.0
    if error <= ERROR_BOUNDS.get(dtype, 0.0):
        return Prepared(place, dtype, data, error if dtype in QUANTIZED else None)
    del data
    if place.layout == "rows" and raw.dtype == "BF16":
        return Prepared(place, "bf16", raw.data, error)
    return Prepared(place, "bf16", _packed(place, matrix, "bf16", pool)[0], error)


def _is_large(place: Placement, raw: RawTensor) -> bool:
    """Tell whether a tensor is better converted a few rows at a time than whole: the head of a
    quantized model takes half a gigabyte as float32.
    """
    in_rows = place.layout == "rows" and not place.transposed and raw.derive_rows is not None
    return in_rows and place.rows * place.cols > _LARGE


def _prepare_in_parts(place: Placement, raw: RawTensor, dtype: str, pool: Pool) -> Prepared:
    """Convert a tensor that is derived, as `_prepare` does, but in parts."""
    try:
        data, error = _packed_in_parts(place, raw, dtype, pool)
    except UnpackableError:
        data, error = memoryview(b""), 1.0
    if error <= ERROR_BOUNDS.get(dtype, 0.0):
        return Prepared(place, dtype, data, error if dtype in QUANTIZED else None)
    del data
    return Prepared(place, "bf16", _packed_in_parts(place, raw, "bf16", pool)[0], error)


def _packed_in_parts(
    place: Placement, raw: RawTensor, dtype: str, pool: Pool
) -> tuple[memoryview, float]:
    target = aligned(packed_bytes(dtype, "rows", place.rows, place.cols))
    step = max(_LARGE // place.cols // _BLOCK_ROWS, 1) * _BLOCK_ROWS
    at, wrong, whole = 0, 0.0, 0.0
    for start in range(0, place.rows, step):
        count = min(step, place.rows - start)
        part = raw.plain_rows(start, count)
        size = packed_bytes(dtype, "rows", count, place.cols)
        matrix = Matrix(part.data, part.dtype, count, place.cols)
        error = pack(pool, matrix, dtype, "rows", target[at : at + size])
        at += size
        if dtype in QUANTIZED:
            values = np.frombuffer(part.data, np.float32)
            square = float(np.dot(values, values))
            wrong, whole = wrong + error * error * square, whole + square
    return memoryview(target.data), (wrong / whole) ** 0.5 if whole else 0.0


def _packed(place: Placement, matrix: Matrix, dtype: str, pool: Pool) -> tuple[memoryview, float]:
    target = aligned(packed_bytes(dtype, place.layout, place.rows, place.cols))
    error = pack(pool, matrix, dtype, place.layout, target)
    return memoryview(target.data), error


def aligned(nbytes: int) -> Bytes:
    """Give memory that begins at a multiple of `ALIGNMENT`.

    Raises:
        MemoryError: There is not enough.
    """
    whole = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + nbytes]
