"""Files of the safetensors package come back as they were; others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rwkv_cli.checkpoints.open import open_checkpoint
from tests.checkpoints.files import refusal, safetensors_bytes
from tests.checkpoints.test_pth import TORCH_DTYPES, as_torch, weights

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F16", "shape": [2, 1], "data_offsets": [8, 12]}


@pytest.mark.parametrize("dtype", TORCH_DTYPES.values(), ids=TORCH_DTYPES)
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "model.pth"
    expected = {**weights(dtype), "scalar": torch.ones((), dtype=dtype)}
    save_file(expected, path, metadata={"format": "pt"})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.metadata == {"format": "pt"}
        assert set(checkpoint.tensors) == set(expected)
        for name, tensor in checkpoint.tensors.items():
            assert tensor.shape == tuple(expected[name].shape)
            assert torch.equal(as_torch(tensor), expected[name])


def test_tensors_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes({"b": B, "a": A}, bytes(12)))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["a", "b"]


def test_empty_tensors_come_back(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0, 5], "data_offsets": [8, 8]}
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors_bytes({"z": empty, "a": A}, bytes(8)))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors["z"].shape == (0, 5)


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        ({"a": A}, 7, "need"),
        ({"a": A}, 9, "need"),
        ({"a": A, "b": {**B, "data_offsets": [9, 13]}}, 13, "a hole or an overlap before b"),
        ({"a": A, "b": {**B, "data_offsets": [4, 8]}}, 8, "a hole or an overlap before b"),
        ({"a": {**A, "data_offsets": [4, 12]}}, 12, "a hole or an overlap before a"),
        ({"a": {**A, "data_offsets": [8, 0]}}, 8, "position of a makes no sense"),
        ({"a": {**A, "data_offsets": [-8, 0]}}, 8, "position of a makes no sense"),
        ({"a": {**A, "data_offsets": [0, 8.0]}}, 8, "position of a makes no sense"),
        ({"a": {**A, "data_offsets": [False, 8]}}, 8, "position of a makes no sense"),
        ({"a": {**A, "data_offsets": [0, 8, 8]}}, 8, "position of a makes no sense"),
        ({"a": {**A, "data_offsets": [0, 2**70]}}, 8, "position of a makes no sense"),
        ({"a": {**A, "shape": [3]}}, 8, "another number"),
        ({"a": {**A, "shape": [2**62, 2**62]}}, 8, "another number"),
        ({"a": {**A, "shape": [-2, -1]}}, 8, "shape of a makes no sense"),
        ({"a": {**A, "shape": [True, 2]}}, 8, "shape of a makes no sense"),
        ({"a": {**A, "shape": [1] * 9 + [2]}}, 8, "shape of a makes no sense"),
        ({"a": {**A, "dtype": "F8_E4M3"}}, 8, "unsupported type: a, F8_E4M3"),
        ({"a": {**A, "dtype": ["F32"]}}, 8, "unsupported type: a"),
        ({"a": {**A, "more": 1}}, 8, "wrong fields"),
        ({"a": {"dtype": "F32"}}, 8, "wrong fields"),
        ({"a": []}, 8, "wrong fields"),
        ({"a\x1b": A}, 8, "unusable name: 'a\\\\x1b'"),
        ({"": A}, 8, "unusable name"),
        ({"\ud800": A}, 8, "unusable name"),
        ({"__metadata__": {"a": 1}, "a": A}, 8, "no table of texts"),
        ({"__metadata__": [], "a": A}, 8, "no table of texts"),
        ({"__metadata__": {}}, 0, "holds no tensors"),
        ({}, 0, "holds no tensors"),
        (b'{"a": 1, "a": 2}', 0, "names a twice"),
        (b'{"a": {"dtype": 1, "dtype": 2}}', 0, "names dtype twice"),
        (b'{"a": NaN}', 0, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", 0, "not valid JSON"),
        (b'{"a": "\xff"}', 0, "not valid JSON"),
        (b'{"a"', 0, "not valid JSON"),
        (b"{" + b"}" * 8, 0, "not valid JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 0, "nested too deeply"),
        (b'{"a":[' + b"[]," * 400_000 + b"[]]}", 0, "more entries than any model"),
    ],
)
def test_headers_that_lie_are_refused(
    tmp_path: Path, header: object, size: int, reason: str
) -> None:
    content = safetensors_bytes(header, bytes(size))
    assert reason in refusal(tmp_path / "m.safetensors", content)


@pytest.mark.parametrize("length", [0, 1, 2**23 + 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1])
def test_lengths_that_lie_are_refused(tmp_path: Path, length: int) -> None:
    content = length.to_bytes(8, "little") + safetensors_bytes({"a": A}, bytes(8))[8:]
    refusal(tmp_path / "m.safetensors", content)


def test_a_file_of_another_kind_of_json_is_not_taken_for_one(tmp_path: Path) -> None:
    message = refusal(tmp_path / "index.json", b'{"map":{"a": "model-1.safetensors"}}')
    assert "looks like JSON" in message
