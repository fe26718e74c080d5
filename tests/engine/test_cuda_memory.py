"""Loading for a card takes little memory of the host."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from oracle.cuda_card import script

from rwkv_cli.arch.spec import GLOBAL_PARAMS, Dims, alternatives, get_arch
from rwkv_cli.engine.modelfile import open_model

_MEASURE = """
import sys
from pathlib import Path
import torch
from rwkv_cli.engine.cuda.weights import load_weights
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.native.pool import Pool

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

torch.set_num_threads(1)
file, pool = open_model(Path(sys.argv[1])), Pool(1)
before, mapped = status("VmRSS"), status("RssFile")
weights = load_weights(file, sys.argv[2], torch.device("cpu"), pool)
tensors = [*weights.vectors.values(), *(m.data for m in weights.matrices.values())]
print(status("VmHWM") - before, sum(t.nbytes for t in tensors), status("RssFile") - mapped)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """About 400 MB of bfloat16, all zeros: a file with holes."""
    arch, width = get_arch("v4"), 1024
    dims = Dims(12, width, 16 << 10, {"C": width, "A": width, "F": 4 * width, "V": 16 << 10})
    shapes = {name: dims.shape(axes) for name, axes in GLOBAL_PARAMS.items()}
    for layer in range(dims.layers):
        for key, axes in arch.params.items():
            shapes[f"blocks.{layer}.{alternatives(key)[1][0]}"] = dims.shape(axes)
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + end)
    yield path
    path.unlink()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_weights_go_to_the_card_tensor_by_tensor(large: Path, dtype: str) -> None:
    """Beyond what stands for the card's memory, the host needs little, and little of the file stays
    mapped.
    """
    peak, of_card, of_files = map(int, script(_MEASURE, large, dtype).split())
    tensors = open_model(large).checkpoint.tensors.values()
    widest = max(tensor.nbytes for tensor in tensors)
    assert sum(tensor.nbytes for tensor in tensors) > 350 << 20
    assert of_card > 150 << 20
    assert peak - of_card < widest + (64 << 20)
    assert of_files < widest + (16 << 20)  # 16 MiB of code
