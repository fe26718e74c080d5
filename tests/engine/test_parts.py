"""A tensor that is decoded a few rows at a time becomes what it becomes whole, in less memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.ggml_files import gguf_model, write_gguf
from oracle.models import needs_native
from oracle.weights import Shape, random_model

from rwkv_cli.engine import native_weights, torch_weights
from rwkv_cli.engine.modelfile import ModelFile, open_model
from rwkv_cli.native.pool import Pool

SHAPE = Shape(layers=1, heads=4, size=64, ffn=512, vocab=1001, rank=8)


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    """A quantized model whose vocabulary is no multiple of anything."""
    made = gguf_model(random_model("v7", SHAPE), "v7", SHAPE, "Q4_K")
    return open_model(write_gguf(made, tmp_path / "m.gguf"))


@needs_native
@pytest.mark.parametrize("dtype", ["int8", "int4", "bf16", "fp16", "fp32"])
def test_parts_are_packed_as_the_whole_is(
    file: ModelFile, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    kept = {}
    for size in (1 << 40, 100, 16 * 256, 10_000):
        monkeypatch.setattr(native_weights, "_LARGE", size)
        for one in native_weights.prepared(file, dtype, Pool(2)):
            data, error = kept.setdefault(one.place.name, (bytes(one.data), one.error))
            assert bytes(one.data) == data, (one.place.name, size)
            assert (one.error or 0) == pytest.approx(error or 0, rel=1e-5), one.place.name


def test_parts_are_converted_by_torch_as_the_whole_is(
    file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = []
    for size in (1 << 40, 1, 1000, 256 * 77):
        monkeypatch.setattr(torch_weights, "_PIECE", size)
        stack = torch_weights.load_stack(file.checkpoint, file.arch, file.dims, "bf16", "cpu")
        heads.append(stack.ends.head)
    whole = file.checkpoint.tensors["head.weight"].plain()
    expected = torch.from_numpy(np.frombuffer(whole.data, "<f4").copy()).reshape(1001, 256)
    assert all(torch.equal(head, expected.bfloat16()) for head in heads)


@needs_native
def test_a_large_tensor_is_never_whole_in_memory(
    file: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_weights, "_LARGE", 16 * 256)
    whole = 4 * SHAPE.vocab * SHAPE.width
    pool, last = Pool(1), 0
    tracemalloc.start()
    for one in native_weights.prepared(file, "int8", pool):
        last, peak = one.data.nbytes, tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        if one.place.name == "head.weight":
            assert peak < last + whole / 2
    tracemalloc.stop()
    assert last
