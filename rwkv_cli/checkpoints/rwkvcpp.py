"""Reads rwkv.cpp's own .bin files, F32 and F16, and undoes what its converter did to tensors.

Format: docs/FILE_FORMAT.md of rwkv.cpp. Six int32 (magic, version, n_vocab, n_embed, n_layer,
type), then for each tensor three int32 (dimensions, length of the name, type), the dimensions
innermost first, the name and the bytes, with no padding between them.
"""

from __future__ import annotations

import struct
from math import prod

from rwkv_cli.checkpoints.rwkvcpp_names import restore
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import (
    ITEM_BYTES,
    MAX_TENSORS,
    Contents,
    RawTensor,
    check_name,
    mapped,
)

_HEADER = struct.Struct("<6i")
_ENTRY = struct.Struct("<3i")
_VERSIONS = (100, 101)
_TYPES = {0: "F32", 1: "F16"}
_QUANTIZED = {2: "Q4_0", 3: "Q4_1", 4: "Q4_1_O", 7: "Q5_0", 8: "Q5_1", 9: "Q8_0"}
_MAX_DIMS = 4
_MAX_KEY = 256


def read(source: Source) -> Contents:
    """Tensors under their original names, shapes and values.

    Raises:
        RefusedError: The file is damaged, quantized, or of an unknown version.
    """
    header = source.take(0, _HEADER.size, "the header")
    _, version, vocabulary, width, layers, kind = _HEADER.unpack(header)
    if version not in _VERSIONS:
        raise source.refused(f"is an rwkv.cpp file of version {version}, which is not supported")
    _type_name(source, kind)
    stored = _read_tensors(source)
    shapes = {tensor.name: tensor.shape for tensor in stored}
    if shapes.get("emb.weight") != (vocabulary, width) or _count_layers(shapes) != layers:
        raise source.refused("is corrupt: its tensors are not those that its header announces")
    return Contents(restore(stored, source), {})


def _read_tensors(source: Source) -> list[RawTensor]:
    tensors: list[RawTensor] = []
    at = _HEADER.size
    while at < source.size:
        tensor, at = _read_tensor(source, at)
        tensors.append(tensor)
        if len(tensors) > MAX_TENSORS:
            raise source.refused("has more tensors than any model")
    return tensors


def _read_tensor(source: Source, at: int) -> tuple[RawTensor, int]:
    """The tensor that starts at byte `at`, and where the next one starts."""
    dims, key_length, kind = _ENTRY.unpack(source.take(at, _ENTRY.size, "a tensor header"))
    if not 1 <= dims <= _MAX_DIMS or not 1 <= key_length <= _MAX_KEY:
        raise source.refused(f"is corrupt: there is no tensor at byte {at}")
    dtype = _type_name(source, kind)
    shape_at = at + _ENTRY.size
    key_at = shape_at + 4 * dims
    data_at = key_at + key_length
    reversed_shape = struct.unpack(f"<{dims}i", source.take(shape_at, 4 * dims, "a shape"))
    if min(reversed_shape) < 1:
        raise source.refused(f"is corrupt: the tensor at byte {at} has an impossible shape")
    try:
        name = str(source.take(key_at, key_length, "a tensor name"), "utf-8")
    except UnicodeDecodeError:
        raise source.refused(f"is corrupt: the tensor at byte {at} has no proper name") from None
    shape = reversed_shape[::-1]
    tensor = mapped(source, check_name(name, source), dtype, shape, data_at)
    return tensor, data_at + prod(shape) * ITEM_BYTES[dtype]


def _type_name(source: Source, kind: int) -> str:
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _QUANTIZED:
        raise source.refused(
            f"is quantized, and {_QUANTIZED[kind]} is not supported yet",
            hint="Use the FP16 or FP32 file, or the original .pth.",
        )
    raise source.refused(f"is corrupt: it names the unknown type {kind}")


def _count_layers(names: dict[str, tuple[int, ...]]) -> int:
    """One more than the highest block number; 0 when there are no blocks."""
    numbers = {name.split(".")[1] for name in names if name.startswith("blocks.")}
    return 1 + max((int(text) for text in numbers if _is_number(text)), default=-1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6
