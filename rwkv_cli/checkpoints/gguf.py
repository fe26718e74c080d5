"""Reads GGUF files, versions 2 and 3; knows blocks and metadata, and no tensor's meaning.

Format: docs/gguf.md of ggml. Magic, version, number of tensors and of metadata; the metadata as
key, type and value; for each tensor its name, dimensions innermost first, type and offset; then,
aligned, the bytes. Every length is bounded by the bytes that are left before anything is made.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rwkv_cli.checkpoints.blocks import BLOCK_TYPES, in_blocks
from rwkv_cli.checkpoints.gguf_names import restore
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import (
    MAX_TENSORS,
    Contents,
    RawTensor,
    check_name,
    mapped,
    printable,
    twice,
)

Value = str | int | float | bool | None

MAX_METADATA = 64 << 20
MAX_KEY, MAX_TEXT = 65_535, 16 << 20
_MAX_PAIRS = 65_536
_MAX_TEXTS = 1 << 20  # in arrays: the largest vocabulary has some 260,000
_KEPT = 1_000  # characters of a text: nothing longer is of use here
_MAX_DIMS, _MAX_DIM = 4, (1 << 31) - 1
_ALIGNMENT_KEY, _ALIGNMENT = "general.alignment", 32
_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_TEXT, _ARRAY, _U32 = 8, 9, 4
_PLAIN = {0: "F32", 1: "F16", 28: "F64", 30: "BF16"}
# ggml/include/ggml.h, enum ggml_type.
_BLOCKS = {
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
}
_OTHERS = {
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS",
    17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S",
    23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the header says of a tensor; the offset counts from the start of the data."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def read(source: Source) -> Contents:
    """Tensors under BlinkDL's names, shapes and values, and what the metadata tell of them.

    Raises:
        RefusedError: The file is damaged, holds a type that is not read here, or no RWKV-6 or 7.
    """
    cursor = _Cursor(source)
    _check_version(source, cursor.number("<4xI"))
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    if tensors > MAX_TENSORS or pairs > _MAX_PAIRS:
        raise source.refused(f"is corrupt: it would have {tensors} tensors and {pairs} keys")
    metadata = _read_metadata(cursor, pairs)
    if metadata.get("split.count") not in (None, 0, 1):
        raise source.refused(
            f"is one of {printable(str(metadata['split.count']))} parts of a model",
            hint="Join them first: llama-gguf-split --merge",
        )
    alignment = _alignment(source, metadata)
    listed = [_read_listed(cursor) for _ in range(tensors)]
    start = -(-cursor.at // alignment) * alignment
    stored = _locate(source, listed, start, alignment)
    return restore(stored, metadata, source)


class _Cursor:
    """A place in the file that moves on as things are read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = self.texts = 0

    def take(self, length: int) -> memoryview:
        taken = self.source.take(self.at, length, "the header")
        self.at += length
        if self.at > MAX_METADATA:
            raise self.source.refused(f"has a header of more than {MAX_METADATA} bytes")
        return taken

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def text(self, limit: int) -> str:
        length = self.number("<Q")
        if length > limit:
            raise self.source.refused(f"is corrupt: it has a text of {length} bytes in its header")
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError:
            raise self.source.refused("is corrupt: a text in its header is not UTF-8") from None

    def value(self) -> tuple[int, Value]:
        """Type and value of a key; None for an array, which is skipped."""
        kind = self.number("<I")
        if kind == _TEXT:
            return kind, self.text(MAX_TEXT)[:_KEPT]
        if kind == _ARRAY:
            self.skip_array()
            return kind, None
        number: Value = self.one(kind).unpack(self.take(self.one(kind).size))[0]
        return kind, number

    def one(self, kind: int) -> struct.Struct:
        if kind not in _NUMBERS:
            raise self.source.refused(f"is corrupt: it has metadata of the unknown type {kind}")
        return _NUMBERS[kind]

    def skip_array(self) -> None:
        kind, count = self.number("<I"), self.number("<Q")
        if kind == _ARRAY:
            raise self.source.refused("has an array of arrays in its header, which no model needs")
        if kind != _TEXT:
            self.take(self.one(kind).size * count)
            return
        self.texts += count
        if count * 8 > self.source.size - self.at or self.texts > _MAX_TEXTS:
            raise self.source.refused(f"is corrupt: it has an array of {count} texts")
        self.skip_texts(count)

    def skip_texts(self, count: int) -> None:
        """Move past texts without a look at them; in a tight loop, for there may be many."""
        length, view, at = _NUMBERS[10], self.source.view, self.at
        for _ in range(count):
            if at + length.size > self.source.size:
                break
            at += length.size + length.unpack_from(view, at)[0]
        else:
            at -= length.size
        self.take(at + length.size - self.at)


def _check_version(source: Source, version: int) -> None:
    if version in (2, 3):
        return
    if version & 0xFFFF == 0:
        raise source.refused("was written for big-endian machines, which are not supported")
    raise source.refused(f"is a GGUF file of version {version}; 2 and 3 are read")


def _read_metadata(cursor: _Cursor, pairs: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(pairs):
        key = cursor.text(MAX_KEY)
        if not key.isascii():
            raise cursor.source.refused("is corrupt: a key in its header is not ASCII")
        if key in metadata:
            raise twice(key, cursor.source)
        kind, value = cursor.value()
        if key == _ALIGNMENT_KEY and kind != _U32:
            raise cursor.source.refused("is corrupt: its alignment is no number of 32 bits")
        metadata[key] = value
    return metadata


def _alignment(source: Source, metadata: dict[str, Value]) -> int:
    value = metadata.get(_ALIGNMENT_KEY, _ALIGNMENT)
    if not isinstance(value, int) or not 8 <= value <= 4096 or value & (value - 1):
        raise source.refused(f"is corrupt: its alignment is {value}")
    return value


def _read_listed(cursor: _Cursor) -> _Listed:
    name = check_name(cursor.text(MAX_KEY), cursor.source)
    count = cursor.number("<I")
    if not 1 <= count <= _MAX_DIMS:
        raise cursor.source.refused(f"has a tensor of {count} dimensions: {name}")
    innermost_first = [cursor.number("<Q") for _ in range(count)]
    if not all(1 <= length <= _MAX_DIM for length in innermost_first):
        raise cursor.source.refused(f"is corrupt: the shape of {name} makes no sense")
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    return _Listed(name, tuple(reversed(innermost_first)), kind, offset)


def _locate(source: Source, listed: list[_Listed], start: int, alignment: int) -> list[RawTensor]:
    """The tensors over their bytes, which neither overlap nor leave the file."""
    edge, found = 0, {}
    for one in sorted(listed, key=lambda one: one.offset):
        if one.offset % alignment or one.offset < edge:
            raise source.refused(f"is corrupt: {one.name} lies across another tensor")
        if one.name in found:
            raise twice(one.name, source)
        found[one.name] = _tensor(source, one, start + one.offset)
        edge = one.offset + found[one.name].nbytes
    return [found[one.name] for one in listed]


def _tensor(source: Source, one: _Listed, at: int) -> RawTensor:
    if one.kind in _PLAIN:
        return mapped(source, one.name, _PLAIN[one.kind], one.shape, at)
    coding = _BLOCKS.get(one.kind)
    if coding is None:
        kind = _OTHERS.get(one.kind, f"number {one.kind}")
        raise source.refused(
            f"has weights of the type {kind}, which is not read here: {printable(one.name)}",
            hint="Types that are: F32, F16, BF16, " + ", ".join(BLOCK_TYPES),
        )
    return in_blocks(source, one.name, coding, one.shape, at)
