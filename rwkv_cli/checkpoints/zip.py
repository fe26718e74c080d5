"""Reads the directory of a ZIP archive of stored entries; knows nothing of what they hold.

The format is APPNOTE.TXT 6.3.10 (PKWARE), of which torch.save uses a small part: nothing is
compressed, sizes follow the data in a descriptor (flag bit 3), names are UTF-8 (flag bit 11),
and the zip64 records are always there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import MAX_TENSORS, printable, twice

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_SIZES_FOLLOW, _UTF8, _ENCRYPTED = 0x0008, 0x0800, 0x0001
_IN_ZIP64_16, _IN_ZIP64_32 = 0xFFFF, 0xFFFF_FFFF
_MAX_COMMENT = 65_535


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored file of the archive: where its bytes are and their checksum."""

    name: str
    offset: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the central directory says of an entry."""

    raw_name: bytes
    flags: int
    crc: int
    size: int
    header: int


def read_entries(source: Source) -> dict[str, Entry]:
    """All entries by name, in the order of the archive's directory.

    Raises:
        RefusedError: The archive is cut short, contradicts itself, or uses compression or
            encryption.
    """
    count, start, length = _find_directory(source)
    listed = _read_directory(source, count, start, length)
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    for item in listed:
        entry = _locate(source, item)
        if entry.name in entries:
            raise twice(entry.name, source)
        entries[entry.name] = entry
        spans.append((item.header, entry.offset + entry.size))
    _check_spans(source, sorted(spans), start)
    return entries


def _find_directory(source: Source) -> tuple[int, int, int]:
    """(number of entries, first byte, length in bytes) of the central directory."""
    end = source.size - _END.size
    if end < 0 or bytes(source.view[end : end + 4]) != b"PK\x05\x06":
        raise _no_end(source)
    _, disk, first_disk, here, count, length, start, comment = _END.unpack_from(source.view, end)
    if comment:
        raise _no_end(source)
    found = (count, start, length)
    locator = end - _END64_LOCATOR.size
    if locator >= 0 and bytes(source.view[locator : locator + 4]) == b"PK\x06\x07":
        end, wide = _read_end64(source, locator)
        for narrow, value, marker in zip(
            found, wide, (_IN_ZIP64_16, _IN_ZIP64_32, _IN_ZIP64_32), strict=True
        ):
            if narrow not in (value, marker):
                raise source.refused("is corrupt: the two ends of its ZIP archive disagree")
        found = wide
    elif disk or first_disk or here != count:
        raise source.refused("is a ZIP archive in several parts")
    count, start, length = found
    if start + length != end or count * _CENTRAL.size > length or count > MAX_TENSORS:
        raise source.refused("is corrupt: the directory of its ZIP archive has the wrong size")
    return found


def _read_end64(source: Source, locator: int) -> tuple[int, tuple[int, int, int]]:
    """Where the zip64 end record starts, and what it says of the directory."""
    _, disk, offset, disks = _END64_LOCATOR.unpack_from(source.view, locator)
    if disk or disks != 1 or offset + _END64.size != locator:
        raise source.refused("is corrupt: the zip64 end of its ZIP archive is misplaced")
    magic, size, _, _, disk, first, here, count, length, start = _END64.unpack_from(
        source.view, offset
    )
    if magic != b"PK\x06\x06" or size != _END64.size - 12 or disk or first or here != count:
        raise source.refused("is corrupt: the zip64 end of its ZIP archive is damaged")
    return offset, (count, start, length)


def _no_end(source: Source) -> Exception:
    tail = bytes(source.view[max(0, source.size - _MAX_COMMENT - _END.size) :])
    if b"PK\x05\x06" in tail:
        return source.refused("is corrupt: there are bytes after the end of its ZIP archive")
    return source.refused(
        f"is cut short: {source.size} bytes, the end of the archive is missing",
        hint="Download it again.",
    )


def _read_directory(source: Source, count: int, start: int, length: int) -> list[_Listed]:
    listed: list[_Listed] = []
    at, end = start, start + length
    for _ in range(count):
        if at + _CENTRAL.size > end:
            raise source.refused("is corrupt: the directory of its ZIP archive is too short")
        fields = _CENTRAL.unpack_from(source.view, at)
        magic, _, _, flags, method, _, _, crc, packed, size = fields[:10]
        name_length, extra_length, comment_length, disk, _, _, header = fields[10:]
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_length
        at = extra_at + extra_length + comment_length
        if magic != b"PK\x01\x02" or at > end or disk:
            raise source.refused("is corrupt: the directory of its ZIP archive is damaged")
        raw_name = bytes(source.view[name_at:extra_at])
        extra = bytes(source.view[extra_at : extra_at + extra_length])
        size, packed, header = _widen(source, extra, [size, packed, header])
        _check_method(source, raw_name, flags, method)
        if packed != size:
            raise source.refused(f"is corrupt: {_shown(raw_name)} has two different sizes")
        listed.append(_Listed(raw_name, flags, crc, size, header))
    if at != end:
        raise source.refused("is corrupt: the directory of its ZIP archive is too long")
    return listed


def _widen(source: Source, extra: bytes, values: list[int]) -> list[int]:
    """Replaces the 32-bit values that say "look in the zip64 field" (APPNOTE 4.5.3)."""
    if _IN_ZIP64_32 not in values:
        return values
    field = _zip64_field(extra)
    at = 0
    for index, value in enumerate(values):
        if value == _IN_ZIP64_32:
            if at + 8 > len(field):
                raise source.refused("is corrupt: a zip64 size in its ZIP archive is missing")
            values[index] = int.from_bytes(field[at : at + 8], "little")
            at += 8
    return values


def _zip64_field(extra: bytes) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _check_method(source: Source, raw_name: bytes, flags: int, method: int) -> None:
    if flags & _ENCRYPTED:
        raise source.refused(f"has an encrypted entry: {_shown(raw_name)}")
    if method != 0:
        raise source.refused(
            f"has a compressed entry: {_shown(raw_name)}; torch.save never compresses",
            hint="Unpack it and pack it again with no compression (zip -0).",
        )
    if flags & ~(_SIZES_FOLLOW | _UTF8):
        raise source.refused(f"has ZIP flags {flags:#06x} that torch.save never sets")


def _locate(source: Source, item: _Listed) -> Entry:
    """The entry behind a line of the directory, its own header checked against that line."""
    header = source.take(item.header, _LOCAL.size, "a ZIP entry")
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(
        header
    )
    name_at = item.header + _LOCAL.size
    raw_name = bytes(source.take(name_at, name_length, "the name of a ZIP entry"))
    # A writer that streams leaves zeros here and repeats the truth after the data.
    free = 0 if flags & _SIZES_FOLLOW else None
    agrees = (
        magic == b"PK\x03\x04"
        and (raw_name, flags, method) == (item.raw_name, item.flags, 0)
        and crc in (item.crc, free)
        and all(value in (item.size, free, _IN_ZIP64_32) for value in (packed, size))
    )
    if not agrees:
        raise source.refused(
            f"is corrupt: the entry {_shown(item.raw_name)} at byte {item.header} "
            "does not match the directory of the archive"
        )
    try:
        name = raw_name.decode("utf-8")
    except UnicodeDecodeError:
        raise source.refused(f"has an entry whose name is no text: {_shown(raw_name)}") from None
    return Entry(name, name_at + name_length + extra_length, item.size, item.crc)


def _check_spans(source: Source, spans: list[tuple[int, int]], directory: int) -> None:
    """No byte belongs to two entries, and the archive starts where the file does."""
    edge = 0
    for start, end in spans:
        if start < edge or end > directory:
            raise source.refused(f"is corrupt: entries of its ZIP archive overlap at byte {start}")
        edge = end
    if not spans or spans[0][0] != 0:
        raise source.refused("is corrupt: its ZIP archive does not start at the first byte")


def _shown(raw_name: bytes) -> str:
    return printable(raw_name.decode("utf-8", "backslashreplace"))
