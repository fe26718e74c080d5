"""Builds weights files byte by byte, sound ones and ones that lie about themselves."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.errors import RefusedError


@dataclass(frozen=True)
class Member:
    """An entry of a ZIP archive; a field that is not None replaces the truth."""

    name: str
    data: bytes
    flags: int = 0
    method: int = 0
    crc: int | None = None
    central_size: int | None = None
    local_size: int | None = None
    local_name: str | None = None
    header: int | None = None


def zip_bytes(members: list[Member], *, gap: bytes = b"", end: bytes = b"") -> bytes:
    """A ZIP archive of stored entries; `gap` lies before the directory, `end` after everything."""
    body, directory = b"", b""
    for member in members:
        start, size = len(body), len(member.data)
        crc = zlib.crc32(member.data) if member.crc is None else member.crc
        local = size if member.local_size is None else member.local_size
        central = size if member.central_size is None else member.central_size
        raw, name = (member.local_name or member.name).encode(), member.name.encode()
        body += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, member.flags, member.method, 0, 0, crc, local, local,
            len(raw), 0,
        ) + raw + member.data  # fmt: skip
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, member.flags, member.method, 0, 0, crc, central,
            central, len(name), 0, 0, 0, 0, 0, start if member.header is None else member.header,
        ) + name  # fmt: skip
    body += gap
    count = len(members)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + tail + end


def pth_bytes(program: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """A .pth as torch 1.6 wrote it: the root is called archive, there is no byteorder."""
    members = [Member("archive/data.pkl", program)]
    members += [Member(f"archive/data/{key}", data) for key, data in (storages or {}).items()]
    return zip_bytes([*members, Member("archive/version", b"3\n")])


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    """A .safetensors file; a header that is bytes is used as it is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def ggmf_bytes(
    tensors: list[tuple[str, int, tuple[int, ...], bytes]],
    head: tuple[int, ...] = (0x67676D66, 101, 5, 4, 1, 0),
) -> bytes:
    """An rwkv.cpp file of (name, type, shape with the outermost dimension first, bytes)."""
    out = struct.pack("<6i", *head)
    for name, kind, shape, data in tensors:
        out += struct.pack("<3i", len(shape), len(name.encode()), kind)
        out += struct.pack(f"<{len(shape)}i", *reversed(shape)) + name.encode() + data
    return out


def refusal(path: Path, content: bytes) -> str:
    """What is said when a file of this content is refused; fails when it is not."""
    path.write_bytes(content)
    return refusal_of(path)


def refusal_of(path: Path) -> str:
    """What is said when this file is refused; fails when it is not."""
    try:
        open_checkpoint(path)
    except RefusedError as error:
        if str(path) not in error.message:
            raise AssertionError(f"no path in: {error.message}") from error
        return error.message
    raise AssertionError("the file was accepted")
