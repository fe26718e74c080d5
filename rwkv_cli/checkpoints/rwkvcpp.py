"""Reads rwkv.cpp's own .bin files, and undoes what its converter did to tensors.

Format: docs/FILE_FORMAT.md of rwkv.cpp. Six int32 (magic, version, n_vocab, n_embed, n_layer,
type), then for each tensor three int32 (dimensions, length of the name, type), the dimensions
innermost first, the name and the bytes, with no padding between them. Quantized types are those of
ggml, in the layout that it has had since version 101 of these files.
"""

from __future__ import annotations

import struct

from rwkv_cli.checkpoints.blocks import in_blocks
from rwkv_cli.checkpoints.rwkvcpp_names import restore
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import (
    MAX_TENSORS,
    Contents,
    RawTensor,
    check_name,
    mapped,
)

_HEADER = struct.Struct("<6i")
_ENTRY = struct.Struct("<3i")
_VERSIONS = (100, 101)
_PLAIN = {0: "F32", 1: "F16"}
_QUANTIZED = {2: "Q4_0", 3: "Q4_1", 7: "Q5_0", 8: "Q5_1", 9: "Q8_0"}
_GONE = {4: "Q4_1_O", 5: "Q4_2", 6: "Q4_3"}
_QUANTIZED_SINCE = 101
_MAX_DIMS = 4
_MAX_KEY = 256


def read(source: Source) -> Contents:
    """Tensors under their original names, shapes and values.

    Raises:
        RefusedError: The file is damaged, or of a version or type that is no longer read.
    """
    header = source.take(0, _HEADER.size, "the header")
    _, version, vocabulary, width, layers, kind = _HEADER.unpack(header)
    if version not in _VERSIONS:
        raise source.refused(f"is an rwkv.cpp file of version {version}, which is not supported")
    if _check_type(source, kind) in _QUANTIZED and version < _QUANTIZED_SINCE:
        raise source.refused(
            f"is quantized as {_QUANTIZED[kind]} in a layout that ggml gave up in 2023",
            hint="Quantize the original model again.",
        )
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
    _check_type(source, kind)
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
    check_name(name, source)
    if kind in _PLAIN:
        tensor = mapped(source, name, _PLAIN[kind], shape, data_at)
    else:
        tensor = in_blocks(source, name, _QUANTIZED[kind], shape, data_at)
    return tensor, data_at + tensor.nbytes


def _check_type(source: Source, kind: int) -> int:
    if kind in _PLAIN or kind in _QUANTIZED:
        return kind
    if kind in _GONE:
        raise source.refused(
            f"is quantized as {_GONE[kind]}, a type that ggml gave up in 2023",
            hint="Quantize the original model again.",
        )
    raise source.refused(f"is corrupt: it names the unknown type {kind}")


def _count_layers(names: dict[str, tuple[int, ...]]) -> int:
    """One more than the highest block number; 0 when there are no blocks."""
    numbers = {name.split(".")[1] for name in names if name.startswith("blocks.")}
    return 1 + max((int(text) for text in numbers if _is_number(text)), default=-1)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6
