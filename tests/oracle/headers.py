"""Weights files of any size that hold a header and no weights: a hole on the disk."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from rwkv_cli.arch.spec import GLOBAL_PARAMS, Dims, alternatives, get_arch

_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


def hollow_model(
    path: Path, version: str, layers: int, width: int, *, vocab: int = 65536, dtype: str = "BF16"
) -> Path:
    """Write the header of a model of any size, and as many bytes behind it as it promises."""
    ranks = dict.fromkeys(("Dw", "Da", "Dv", "Dg", "Dm"), 64)
    sizes = {"C": width, "A": width, "F": 4 * width, "V": vocab, "N": 64, "H": width // 64}
    dims = Dims(layers, width, vocab, {**sizes, **ranks, "M": 5 * ranks["Dm"]})
    shapes = {name: dims.shape(axes) for name, axes in GLOBAL_PARAMS.items()}
    for layer in range(layers):
        for key, axes in get_arch(version).params.items():
            optional, names = alternatives(key)
            if not names[0].endswith("time_state") and not (optional and layer == 0):
                shapes[f"blocks.{layer}.{names[0]}"] = dims.shape(axes)
    return _write_hollow(path, shapes, dtype)


def _write_hollow(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str) -> Path:
    table, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + prod(shape) * _BYTES[dtype]
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(table).encode()
    text += b" " * (-(len(text) + 8) % 64)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path
