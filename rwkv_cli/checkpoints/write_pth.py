"""Writes .pth files as torch.save does since 1.6, a tensor at a time; knows no architecture.

A ZIP archive of stored entries (checkpoints/pth.py has the layout): a pickle that says which
tensor lies in which entry, and an entry of plain bytes for each. Every entry begins at a multiple
of 64 bytes, as torch has it, so that the numbers can be used where they lie.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterable
from typing import BinaryIO

from rwkv_cli.checkpoints.pickled import STORAGE_DTYPES, Name
from rwkv_cli.checkpoints.precision import elements, plain_bytes
from rwkv_cli.checkpoints.tensors import RawTensor

_ALIGNMENT = 64
_EXTRA_HEAD = 4  # bytes: a field's id and length
_PADDING = b"FB"  # the id under which torch pads
_WIDE = 1 << 31  # entries of this size and more get zip64 records
_PIECE = 64 << 20

_STORAGES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}


def write_pth(
    out: BinaryIO, tensors: Iterable[RawTensor], root: str, written: Callable[[RawTensor], None]
) -> None:
    """Write a dict of tensors in their order.

    Args:
        out: A file to write to, at its first byte.
        tensors: What to write; one at a time is asked for its elements.
        root: Name of the one folder in the archive.
        written: Called with each tensor once its bytes are written.
    """
    listed = list(tensors)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        _entry(archive, f"{root}/data.pkl", memoryview(_program(listed)))
        _entry(archive, f"{root}/byteorder", memoryview(b"little"))
        for key, tensor in enumerate(listed):
            _entry(archive, f"{root}/data/{key}", tensor.plain().data, plain_bytes(tensor))
            written(tensor)
        _entry(archive, f"{root}/version", memoryview(b"3\n"))


def _entry(
    archive: zipfile.ZipFile, name: str, data: memoryview, nbytes: int | None = None
) -> None:
    """Add an entry whose first byte is aligned."""
    info = zipfile.ZipInfo(name)  # with the format's first date, so that equal models are equal
    info.file_size = info.compress_size = data.nbytes if nbytes is None else nbytes
    info.CRC = 0  # known when all is written
    wide = info.file_size >= _WIDE
    start = (archive.fp.tell() if archive.fp else 0) + len(info.FileHeader(zip64=wide))
    room = -(start + _EXTRA_HEAD) % _ALIGNMENT
    info.extra = _PADDING + struct.pack("<H", room) + bytes(room)
    with archive.open(info, "w", force_zip64=wide) as entry:
        for at in range(0, data.nbytes, _PIECE):
            entry.write(data[at : at + _PIECE])


def _program(tensors: list[RawTensor]) -> bytes:
    """Write the pickle (protocol 2; opcodes: CPython Lib/pickletools.py) of the dict."""
    parts = [b"\x80\x02}"]
    for key, tensor in enumerate(tensors):
        storage = _storage(tensor, str(key))
        view = _number(0) + _tuple(tensor.shape) + _tuple(_strides(tensor.shape))
        hooks = _name(Name.ORDERED.value) + b")R"
        arguments = b"(" + storage + view + b"\x89" + hooks + b"t"
        parts += [_text(tensor.name), _name(Name.TENSOR.value), arguments, b"Rs"]
    return b"".join([*parts, b"."])


def _storage(tensor: RawTensor, key: str) -> bytes:
    """Push a persistent id: ("storage", type, key, device, number of elements)."""
    described = _text("storage") + _name(_STORAGES[tensor.dtype]) + _text(key) + _text("cpu")
    return b"(" + described + _number(elements(tensor)) + b"tQ"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements between neighbours of each axis of a row-major tensor."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def _tuple(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"


def _name(dotted: str) -> bytes:
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(raw)]) + raw
