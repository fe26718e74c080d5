"""Files written here hold what they were given, for other programs and for our own readers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.checkpoints import write_pth as writer
from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.precision import cast, narrowed, plain_bytes, widened
from rwkv_cli.checkpoints.tensors import ITEM_BYTES, RawTensor
from rwkv_cli.checkpoints.write_hf import for_transformers
from rwkv_cli.checkpoints.write_pth import write_pth
from rwkv_cli.checkpoints.write_safetensors import write_safetensors
from rwkv_cli.errors import RefusedError

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip

_NAMES = st.text("abcxyz.0129_", min_size=1, max_size=12)
_SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 5]), max_size=4).map(tuple)


@st.composite
def _tensors(draw: Any) -> list[RawTensor]:
    made = []
    for name in draw(st.lists(_NAMES, min_size=1, max_size=6, unique=True)):
        dtype, shape = draw(st.sampled_from(sorted(TYPES))), draw(_SHAPES)
        size = int(np.prod(shape, dtype=int)) * ITEM_BYTES[dtype]
        seed = draw(st.integers(0, 99))
        numbers = np.random.default_rng(seed).integers(0, 2, size)
        data = memoryview(bytearray(numbers.astype(np.uint8).tobytes()))
        made.append(RawTensor(name, dtype, shape, data))
    return made


def _write(kind: str, path: Path, tensors: list[RawTensor]) -> list[str]:
    done: list[str] = []
    with path.open("wb") as out:
        if kind == "pth":
            write_pth(out, tensors, "root", lambda t: done.append(t.name))
        else:
            write_safetensors(out, tensors, {"a": "b"}, lambda t: done.append(t.name))
    return done


def _expected(tensor: RawTensor) -> torch.Tensor:
    kind = TYPES[tensor.dtype]
    if not tensor.data.nbytes:
        return torch.empty(tensor.shape, dtype=kind)
    return torch.frombuffer(bytearray(tensor.data), dtype=kind).reshape(tensor.shape)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@given(tensors=_tensors())
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_what_torch_and_our_reader_find(
    kind: str, tensors: list[RawTensor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"written.{kind}"
    done = _write(kind, path, tensors)
    assert sorted(done) == sorted(t.name for t in tensors)
    if kind == "pth":
        theirs = torch.load(path, weights_only=True)
        assert list(theirs) == [t.name for t in tensors]
    else:
        theirs = safetensors.torch.load_file(path)
    with open_checkpoint(path) as ours:
        assert set(theirs) == set(ours.tensors) == {t.name for t in tensors}
        for tensor in tensors:
            assert theirs[tensor.name].dtype == TYPES[tensor.dtype]
            assert torch.equal(theirs[tensor.name], _expected(tensor))
            found = ours.tensors[tensor.name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert bytes(found.data) == bytes(tensor.data)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_equal_models_are_equal_files(kind: str, tmp_path: Path) -> None:
    tensors = [RawTensor("x", "F32", (3,), memoryview(bytearray(12)))]
    _write(kind, tmp_path / "a", tensors)
    _write(kind, tmp_path / "b", tensors)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_numbers_of_a_pth_file_are_aligned_and_can_be_mapped(tmp_path: Path) -> None:
    tensors = [
        RawTensor(f"t{n}", "BF16", (n,), memoryview(bytearray(range(2 * n)))) for n in range(1, 40)
    ]
    path = tmp_path / "x.pth"
    _write("pth", path, tensors)
    content, ours = path.read_bytes(), open_checkpoint(path)
    assert torch.equal(torch.load(path, mmap=True)["t39"], _expected(tensors[-1]))
    for tensor in ours.tensors.values():
        assert content.index(bytes(tensor.data)) % 64 == 0 or len(tensor.data) < 12


def test_a_large_entry_has_wide_records_that_every_reader_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_WIDE", 1 << 16)
    tensor = RawTensor("x", "U8", (1 << 17,), memoryview(bytearray(1 << 17)))
    path = tmp_path / "x.pth"
    _write("pth", path, [tensor])
    assert torch.equal(torch.load(path, weights_only=True)["x"], _expected(tensor))
    assert open_checkpoint(path).tensors["x"].nbytes == 1 << 17


@given(value=st.integers(0, 1 << 62))
def test_numbers_of_any_size_are_what_a_pickle_reader_reads(value: int) -> None:
    assert pickle.loads(b"\x80\x02" + writer._number(value) + b".") == value


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_numbers_are_rounded_as_torch_rounds_them(dtype: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 5000).astype(np.float32) * 10.0 ** rng.integers(-12, 4, 5000)
    values = np.append(values, [0, -0.0, np.inf, -np.inf, 1.00390625, 1.01171875, 65504, 1e-42])
    values = values.astype(np.float32)
    rounded = torch.from_numpy(values).to(TYPES[dtype])
    assert bytes(narrowed(values, dtype)) == rounded.view(torch.uint8).numpy().tobytes()
    back = widened(narrowed(values, dtype), dtype)
    assert np.array_equal(back, rounded.to(torch.float32).numpy())
    assert np.isnan(widened(narrowed(np.float32([np.nan]), dtype), dtype)).all()


@pytest.mark.parametrize(("dtype", "value"), [("F16", 65520.0), ("BF16", 3.4e38)])
def test_a_number_that_does_not_fit_is_refused_never_made_infinite(
    dtype: str, value: float
) -> None:
    data = memoryview(bytearray(np.float32([1, value]).tobytes()))
    with pytest.raises(RefusedError, match=f"some has numbers too large for {dtype}"):
        cast(RawTensor("some", "F32", (2,), data), dtype).plain()


def test_a_cast_is_made_when_it_is_asked_for_and_again_each_time() -> None:
    data = memoryview(bytearray(np.float32([1, 2]).tobytes()))
    narrow = cast(RawTensor("x", "F32", (2,), data), "F16")
    assert (narrow.dtype, plain_bytes(narrow)) == ("F16", 4)
    assert narrow.plain().data is not narrow.plain().data
    data[:4] = np.float32([3]).tobytes()
    assert np.frombuffer(narrow.plain().data, np.float16).tolist() == [3, 2]
    assert cast(narrow, "F16") is narrow


def test_vectors_get_the_axes_that_transformers_has() -> None:
    def shape(name: str, axes: tuple[int, ...], version: str) -> tuple[str, tuple[int, ...]]:
        nothing = memoryview(b"")
        made = for_transformers(RawTensor(name, "F32", axes, nothing), version)
        return made.name, made.shape

    assert shape("blocks.1.att.x_r", (8,), "v7") == ("rwkv7.blocks.1.att.x_r", (1, 1, 8))
    assert shape("blocks.1.att.r_k", (2, 4), "v7") == ("rwkv7.blocks.1.att.r_k", (2, 4))
    assert shape("head.weight", (2, 4), "v7") == ("head.weight", (2, 4))
    named = shape("blocks.0.att.time_mix_k", (8,), "v4")
    assert named == ("rwkv.blocks.0.attention.time_mix_key", (1, 1, 8))
    decay = shape("blocks.0.att.time_decay", (1, 1, 8), "v4")
    assert decay == ("rwkv.blocks.0.attention.time_decay", (8,))
    assert shape("blocks.0.ln0.bias", (8,), "v4") == ("rwkv.blocks.0.pre_ln.bias", (8,))
