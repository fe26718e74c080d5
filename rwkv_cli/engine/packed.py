"""Packed weights files as their header tells them: safetensors whose bytes the C++ engine uses
where they lie. Imports neither numpy nor the library.

Every size and place follows from the version of RWKV and the shapes of its tensors (`placement`);
the header only says which precision each tensor has. So there is little that a hostile file can
claim, and all of it is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from rwkv_cli.arch.detect import detect
from rwkv_cli.arch.spec import Arch, Dims
from rwkv_cli.checkpoints.tensors import MAX_DIMS, Checkpoint, printable
from rwkv_cli.engine.placement import (
    FLOATS,
    QUANTIZED,
    Placement,
    allowed,
    packed_size,
    placements,
)
from rwkv_cli.errors import MismatchError, RefusedError

FORMAT = "rwkv-packed"
LAYOUT = "1"  # raised when native/src/formats.h or the placement of a tensor changes
BLOCK = 64  # tensors begin at multiples of it
DTYPES = (*FLOATS, *QUANTIZED)

_TYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
_MOST_DIGITS = 64
_LARGEST_AXIS = 1 << 40


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A tensor of a packed file.

    Attributes:
        dtype: Its precision.
        shape: In the original checkpoint.
        error: Relative error of its quantization, or the one for which that was given up; None
            where nothing was quantized.
        nbytes: Without what fills the last 64 bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    error: float | None
    nbytes: int


@dataclass(frozen=True, slots=True)
class Packed:
    """What the header of a packed file tells beyond that of any weights file.

    Attributes:
        dtype: The precision it was packed in.
        weights: Fingerprint of the checkpoint that it was made from.
        tensors: By name.
    """

    dtype: str
    weights: str
    tensors: Mapping[str, PackedTensor]

    def kept(self) -> list[str]:
        """Name the tensors that stayed in 16 bits because too much of them would be lost."""
        return [n for n, t in self.tensors.items() if t.dtype == "bf16" and t.error is not None]


def is_packed(checkpoint: Checkpoint) -> bool:
    """Tell whether a file says that it is packed."""
    return checkpoint.metadata.get("format") == FORMAT


def read_packed(checkpoint: Checkpoint) -> tuple[Packed, Arch, Dims]:
    """Read and prove the header of a packed file.

    Raises:
        RefusedError: It contradicts itself or the tensors of the file.
        MismatchError: It was packed by another version of this program.
    """
    notes, path = checkpoint.metadata, checkpoint.path
    if notes.get("layout") != LAYOUT:
        layout = printable(notes.get("layout", "unknown"), 20)
        raise MismatchError(
            f"{path}: is packed in layout {layout}, this version of the program reads {LAYOUT}",
            hint="pack the original file again: rwkv convert FILE --dtype int8",
        )
    dtype, weights = notes.get("dtype", ""), notes.get("weights", "")
    if dtype not in DTYPES or not _is_fingerprint(weights):
        raise RefusedError(f"{path}: is packed, but its notes are damaged")
    entries = _entries(checkpoint)
    try:
        arch, dims = detect({name: shape for name, (_, shape, _) in entries.items()})
    except RefusedError as error:
        raise RefusedError(f"{path}: {error.message}") from error
    return Packed(dtype, weights, _proven(checkpoint, arch, dims, dtype, entries)), arch, dims


def stored_form(place: Placement, dtype: str) -> tuple[str, tuple[int, ...]]:
    """Give the type and shape under which a tensor stands in the file: its own where that is all
    there is to it, else bytes, filled up to whole blocks.
    """
    size = packed_size(place, dtype)
    if dtype in _TYPES and place.layout == "rows" and size % BLOCK == 0:
        return _TYPES[dtype], place.shape
    return "U8", (-(-size // BLOCK) * BLOCK,)


_Entries = dict[str, tuple[str, tuple[int, ...], float | None]]


def _is_fingerprint(text: str) -> bool:
    kind, _, digits = text.partition(":")
    return kind.isalpha() and 0 < len(digits) <= _MOST_DIGITS and digits.isalnum()


def _entries(checkpoint: Checkpoint) -> _Entries:
    """Read what the notes say of each tensor: precision, shape and error.

    Raises:
        RefusedError: They are malformed.
    """
    try:
        table = json.loads(checkpoint.metadata.get("tensors", ""))
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict) or not all(map(_is_entry, table.values())):
        raise RefusedError(f"{checkpoint.path}: is packed, but its list of tensors is damaged")
    if table.keys() != checkpoint.tensors.keys():
        raise RefusedError(f"{checkpoint.path}: is packed, but lists other tensors than it has")
    return {name: (entry[0], tuple(entry[1]), entry[2]) for name, entry in table.items()}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, list) or len(entry) != 3:
        return False
    dtype, shape, error = entry
    return (
        isinstance(dtype, str)
        and isinstance(shape, list)
        and len(shape) <= MAX_DIMS
        and all(type(axis) is int and 0 < axis <= _LARGEST_AXIS for axis in shape)
        and (error is None or (type(error) in (int, float) and error >= 0))
    )


def _proven(
    checkpoint: Checkpoint, arch: Arch, dims: Dims, dtype: str, entries: _Entries
) -> dict[str, PackedTensor]:
    """Compare every tensor with the form that it must have.

    Raises:
        RefusedError: One has another, or the version knows no such tensor.
    """
    found = {}
    for place in placements(arch, dims, entries.keys()):
        precision, shape, error = entries[place.name]
        raw = checkpoint.tensors[place.name]
        if precision not in allowed(place, dtype):
            raise RefusedError(
                f"{checkpoint.path}: tensor {place.name} is packed as {printable(precision, 20)}"
            )
        if (raw.dtype, raw.shape) != stored_form(place, precision):
            raise RefusedError(
                f"{checkpoint.path}: tensor {place.name} has {raw.dtype} {list(raw.shape)}, which "
                f"is not what {precision} of shape {list(shape)} takes"
            )
        found[place.name] = PackedTensor(precision, shape, error, packed_size(place, precision))
    if len(found) != len(entries):
        unknown = next(name for name in entries if name not in found)
        raise RefusedError(f"{checkpoint.path}: {arch.title} has no tensor {printable(unknown)}")
    return found
