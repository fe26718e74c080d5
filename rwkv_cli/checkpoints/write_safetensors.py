"""Writes .safetensors files, a tensor at a time; knows no architecture.

Format: 8 bytes little-endian length of the header, the header as JSON, then the bytes of all
tensors without a hole (https://github.com/huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

from rwkv_cli.checkpoints.precision import plain_bytes
from rwkv_cli.checkpoints.tensors import ITEM_BYTES, RawTensor

_ALIGNMENT = 64  # of the first tensor: readers map the file and use the numbers in place


def write_safetensors(
    out: BinaryIO,
    tensors: Iterable[RawTensor],
    notes: Mapping[str, str],
    written: Callable[[RawTensor], None],
) -> None:
    """Write tensors in their order, those with larger elements first so that none lies askew.

    Args:
        out: A file to write to.
        tensors: What to write; one at a time is asked for its elements.
        notes: Goes into `__metadata__`.
        written: Called with each tensor once its bytes are written.
    """
    ordered = sorted(tensors, key=lambda tensor: -ITEM_BYTES[tensor.dtype])
    header: dict[str, object] = {"__metadata__": dict(notes)} if notes else {}
    edge = 0
    for tensor in ordered:
        end = edge + plain_bytes(tensor)
        header[tensor.name] = {
            "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (edge, end)
        }  # fmt: skip
        edge = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    out.write(len(text).to_bytes(8, "little") + text)
    for tensor in ordered:
        out.write(tensor.plain().data)
        written(tensor)
