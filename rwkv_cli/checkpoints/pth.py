"""Reads the ZIP archives torch.save writes (torch 1.6 and newer); knows no architecture.

Layout: `<root>/data.pkl` describes the tensors, `<root>/data/<key>` holds the bytes of one
storage. The small entries around them (version, byteorder, .format_version,
.storage_alignment, .data/serialization_id) came one by one with newer releases of torch.
"""

from __future__ import annotations

import re
import zlib
from math import prod

from rwkv_cli.checkpoints.buffers import transposed
from rwkv_cli.checkpoints.pickled import StoredTensor
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import (
    ITEM_BYTES,
    MAX_DIMS,
    MAX_TENSORS,
    Contents,
    RawTensor,
    check_name,
    mapped,
    printable,
)
from rwkv_cli.checkpoints.unpickle import unpickle
from rwkv_cli.checkpoints.zip import Entry, read_entries

MAX_PICKLE = 16 << 20
MAX_NOTE = 200
_WRAPPERS = ("state_dict", "model", "module")
_KNOWN_ENTRY = re.compile(
    r"data\.pkl|data/[0-9]+|byteorder|version|\.format_version|\.storage_alignment|\.data/\w+"
)


def read(source: Source) -> Contents:
    """Tensors of a checkpoint in the order of its dict, under the names of the file.

    A dict of tensors, or one wrapped as {"state_dict": …}, {"model": …} or {"module": …}.

    Raises:
        RefusedError: The file is damaged or holds anything but tensors and plain values.
    """
    entries = _strip_root(source, read_entries(source))
    program = _read_program(source, entries)
    table, notes = _unwrap(source, unpickle(program, source.refused))
    if len(table) > MAX_TENSORS:
        raise source.refused(f"names {len(table)} tensors, more than any model has")
    tensors: list[RawTensor] = []
    for name, value in table.items():
        if isinstance(value, StoredTensor):
            tensors.append(_tensor(source, entries, check_name(name, source), value))
        elif isinstance(value, (list, tuple, dict)) or not _keep_note(notes, name, value):
            raise source.refused(f"holds something that is no tensor: {printable(name)}")
    return Contents(tensors, notes)


def _strip_root(source: Source, entries: dict[str, Entry]) -> dict[str, Entry]:
    """The entries by their name inside the one folder that holds everything."""
    roots = {name.partition("/")[0] for name in entries}
    stripped = {name.partition("/")[2]: entry for name, entry in entries.items()}
    if "constants.pkl" in stripped or any(name.startswith("code/") for name in stripped):
        raise source.refused("is a TorchScript program, not plain weights; nothing was run")
    if len(roots) != 1 or "data.pkl" not in stripped:
        raise source.refused("is a ZIP archive, but not one that torch.save wrote")
    for name in stripped:
        if not _KNOWN_ENTRY.fullmatch(name):
            raise source.refused(f"has an entry that torch.save never writes: {printable(name)}")
    return stripped


def _read_program(source: Source, entries: dict[str, Entry]) -> bytes:
    order = entries.get("byteorder")
    if order and bytes(source.view[order.offset :][: min(order.size, 16)]) != b"little":
        raise source.refused("was written on a big-endian machine, which is not supported")
    entry = entries["data.pkl"]
    if entry.size > MAX_PICKLE:
        raise source.refused(f"has a data.pkl of {entry.size} bytes; weights need far fewer")
    program = bytes(source.take(entry.offset, entry.size, "data.pkl"))
    if zlib.crc32(program) != entry.crc:
        raise source.refused("is corrupt: the checksum of data.pkl is wrong")
    return program


def _unwrap(source: Source, root: object) -> tuple[dict[str, object], dict[str, str]]:
    """The dict of tensors, and the notes beside it when it is wrapped."""
    if not isinstance(root, dict):
        raise source.refused("holds no dict of tensors")
    if any(isinstance(value, StoredTensor) for value in root.values()):
        return root, {}
    inner = next((root[key] for key in _WRAPPERS if isinstance(root.get(key), dict)), None)
    if not isinstance(inner, dict):
        return root, {}
    notes: dict[str, str] = {}
    for name, value in root.items():
        _keep_note(notes, name, value)
    return inner, notes


def _keep_note(notes: dict[str, str], name: str, value: object) -> bool:
    """Keeps a short plain value as text; False when the value is not plain."""
    if value is not None and type(value) not in (str, int, float, bool):
        return False
    text = str(value)
    if len(text) <= MAX_NOTE and len(name) <= MAX_NOTE:
        notes[name] = text
    return True


def _tensor(
    source: Source, entries: dict[str, Entry], name: str, stored: StoredTensor
) -> RawTensor:
    storage, shape = stored.storage, stored.shape
    entry = entries.get(f"data/{storage.key}")
    if entry is None:
        raise source.refused(f"is corrupt: the data of {name} is missing")
    width = ITEM_BYTES[storage.dtype]
    if storage.count * width != entry.size:
        raise source.refused(
            f"is corrupt: the data of {name} has {entry.size} bytes instead of "
            f"{storage.count * width}"
        )
    if len(shape) > MAX_DIMS:
        raise source.refused(f"has a tensor of {len(shape)} dimensions: {name}")
    if stored.offset + _extent(stored) > storage.count:
        raise source.refused(f"is corrupt: {name} reaches past the end of its data")
    start = entry.offset + stored.offset * width
    if _is_contiguous(stored):
        return mapped(source, name, storage.dtype, shape, start)
    if len(shape) == 2 and stored.strides == (1, shape[0]):
        flipped = mapped(source, name, storage.dtype, shape[::-1], start)
        return transposed(flipped)
    raise source.refused(f"has a tensor whose elements do not lie in a row: {name}")


def _extent(stored: StoredTensor) -> int:
    """How many elements of the storage the tensor spans."""
    if 0 in stored.shape:
        return 0
    return 1 + sum(
        (length - 1) * stride for length, stride in zip(stored.shape, stored.strides, strict=True)
    )


def _is_contiguous(stored: StoredTensor) -> bool:
    expected = prod(stored.shape)
    if expected == 0:
        return True
    for length, stride in zip(stored.shape, stored.strides, strict=True):
        expected //= length
        if length != 1 and stride != expected:
            return False
    return True
