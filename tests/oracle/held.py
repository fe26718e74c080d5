"""What the native engine holds of a weights file: its matrices as they were packed, read by the
format's own oracle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from oracle.packing import unpacked
from oracle.weights import Tensors
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.native_weights import load_tensors
from rwkv_cli.engine.placement import placements
from rwkv_cli.native.model import TYPES
from rwkv_cli.native.pack import LAYOUTS
from rwkv_cli.native.pool import Pool


def held_weights(path: Path, dtype: str) -> tuple[Tensors, set[str]]:
    """Give every tensor in the shape of the file, and the precisions of its matrices; a tuned state
    is not among them.
    """
    file = open_model(path)
    raws = file.checkpoint.tensors
    places = {place.name: place for place in placements(file.arch, file.dims, raws.keys())}
    weights: Tensors = {}
    types = set()
    for tensor in load_tensors(file, dtype, Pool(1)):
        kept, layout = TYPES[tensor.type], list(LAYOUTS)[tensor.layout]
        data = np.frombuffer(tensor.data, np.uint8)
        matrix = unpacked(data, kept, layout, tensor.rows, tensor.cols)
        straight = matrix.T if places[tensor.name].transposed else matrix
        weights[tensor.name] = straight.reshape(raws[tensor.name].shape)
        if places[tensor.name].role != "vector":
            types.add(kept)
    return weights, types
