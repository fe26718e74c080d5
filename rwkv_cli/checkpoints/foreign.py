"""Tells what a file is when it is no weights file; knows only how other formats begin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Foreign:
    """A sentence that continues the path, and what to do."""

    reason: str
    hint: str | None = None


_AGAIN = "Download it again and look at the link: it answered with something else."
_CONVERT = "Use the .pth or .safetensors file of the same model."
_RESAVE = "Use a newer copy of the model; .safetensors is best."
_ZIP = "is a packed archive, not weights"

_STARTS: tuple[tuple[bytes, Foreign], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        Foreign("is a Git LFS pointer, not the weights", "Fetch the file itself: git lfs pull"),
    ),
    # The number that opens torch's old format: pickled 0x1950a86a20f9469cfc6c.
    (
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19",
        Foreign("was saved by torch before 1.6; nothing in it was run", _RESAVE),
    ),
    (b"\x80", Foreign("is a bare Python pickle, which can run code; nothing was run", _RESAVE)),
    (b"FUGG", Foreign("is a GGUF file for big-endian machines, which is not supported", _CONVERT)),
    (b"lmgg", Foreign("is an old ggml file, which is not supported", _CONVERT)),
    (b"tjgg", Foreign("is an old ggml file, which is not supported", _CONVERT)),
    (b"\x93NUMPY", Foreign("is a numpy array, not a checkpoint")),
    (b"\x89HDF\r\n", Foreign("is an HDF5 file, which is not supported", _CONVERT)),
    (b"PK\x05\x06", Foreign("is an empty ZIP archive")),
    (b"\x1f\x8b", Foreign(_ZIP, "Unpack it first: gzip -d")),
    (b"7z\xbc\xaf\x27\x1c", Foreign(_ZIP, "Unpack it first.")),
    (b"\xfd7zXZ", Foreign(_ZIP, "Unpack it first: xz -d")),
    (b"\x28\xb5\x2f\xfd", Foreign(_ZIP, "Unpack it first: zstd -d")),
    (b"BZh", Foreign(_ZIP, "Unpack it first: bzip2 -d")),
    (b"Rar!", Foreign(_ZIP, "Unpack it first.")),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script", b"<error")
_TAR_AT, _TAR = 257, b"ustar"


def recognize(head: bytes) -> Foreign:
    """What a file that begins with `head` seems to be (512 bytes are enough)."""
    for start, foreign in _STARTS:
        if head.startswith(start):
            return foreign
    if head.startswith(b"{") and b'"weight_map"' in head:
        return Foreign("is a list of shards, not weights", "Name the folder that it lies in.")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGES):
        return Foreign("looks like a web page, not weights", _AGAIN)
    if text.startswith((b"{", b"[")):
        return Foreign("looks like JSON text, not weights", _AGAIN)
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return Foreign("is a tar archive, a form of torch before 0.2; nothing was run", _RESAVE)
    if not head.strip(b"\0"):
        return Foreign("begins with zeros only: an unfinished download?", "Download it again.")
    return Foreign("is in none of the known formats: .pth, .safetensors, .gguf, rwkv.cpp .bin")
