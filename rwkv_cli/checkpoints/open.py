"""Opens a weights file of any known format; decides by its bytes, never by its name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from rwkv_cli.checkpoints.foreign import recognize
from rwkv_cli.checkpoints.names import to_original
from rwkv_cli.checkpoints.source import Source
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
)


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a weights file and names its tensors as BlinkDL's checkpoints do.

    Reads only headers: the weights stay on disk until they are touched.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is damaged, unsafe, or of no known format.
    """
    source = Source(path)
    head = bytes(source.view[:_HEAD])
    for name, matches, reader in _FORMATS:
        if matches(head):
            with source.scattered_reads():
                contents = _resolve(reader)(source)
                tensors = to_original(contents.tensors, source)
            check_tensors(tensors, source)
            return Checkpoint(source, name, Contents(tensors, contents.metadata))
    foreign = recognize(head)
    raise source.refused(foreign.reason, hint=foreign.hint)


def _resolve(reader: str) -> Callable[[Source], Contents]:
    module, _, function = reader.partition(":")
    return cast("Callable[[Source], Contents]", getattr(import_module(module), function))
