"""Opens a weights file of any known format; decides by its bytes, never by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

from rwkv_cli.checkpoints.foreign import recognize
from rwkv_cli.checkpoints.names import to_original
from rwkv_cli.checkpoints.source import Origin, Source
from rwkv_cli.checkpoints.tensors import Checkpoint, Contents, check_tensors

_HEAD = 512


def _is_safetensors(head: bytes) -> bool:
    # Eight bytes of text before a brace are JSON or a page; as a length they are 10^18 or more.
    text = all(32 <= byte < 127 for byte in head[:8])
    return head[8:9] == b"{" and not text


# A new format is a module with `read(source) -> Contents` and a line here.
_FORMATS: tuple[tuple[str, Callable[[bytes], bool], str], ...] = (
    ("pth", lambda head: head.startswith(b"PK\x03\x04"), "rwkv_cli.checkpoints.pth:read"),
    ("safetensors", _is_safetensors, "rwkv_cli.checkpoints.safetensors:read"),
    ("rwkv.cpp", lambda head: head.startswith(b"fmgg"), "rwkv_cli.checkpoints.rwkvcpp:read"),
    ("GGUF", lambda head: head.startswith(b"GGUF"), "rwkv_cli.checkpoints.gguf:read"),
)


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a weights file, or a folder of the kind Hugging Face's transformers writes, and names
    its tensors as BlinkDL's checkpoints do.

    Reads only headers: the weights stay on disk until they are touched.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is damaged, unsafe, or of no known format.
    """
    if path.is_dir():
        from rwkv_cli.checkpoints.folder import read

        origin, name, contents = Origin(path), "folder", read(path, read_file)
    else:
        origin = source = Source(path)
        name, contents = read_file(source)
    tensors = to_original(contents.tensors, name)
    check_tensors(tensors, origin)
    return Checkpoint(path, name, replace(contents, tensors=tensors))


def read_file(source: Source) -> tuple[str, Contents]:
    """The format of a file, and what is in it under the file's own names.

    Raises:
        RefusedError: It is damaged, unsafe, or of no known format.
    """
    head = bytes(source.view[:_HEAD])
    for name, matches, reader in _FORMATS:
        if matches(head):
            with source.scattered_reads():
                contents = _resolve(reader)(source)
            return name, replace(contents, sources=(source,))
    foreign = recognize(head)
    raise source.refused(foreign.reason, hint=foreign.hint)


def _resolve(reader: str) -> Callable[[Source], Contents]:
    module, _, function = reader.partition(":")
    return cast("Callable[[Source], Contents]", getattr(import_module(module), function))
