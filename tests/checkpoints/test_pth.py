"""Files written by torch.save come back as they were."""

from __future__ import annotations

import tracemalloc
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.tensors import RawTensor
from tests.checkpoints.files import Member, pth_bytes, refusal, zip_bytes

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def as_torch(tensor: RawTensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if not tensor.nbytes:
            return torch.zeros(tensor.shape, dtype=TORCH_DTYPES[tensor.dtype])
        flat = torch.frombuffer(tensor.plain().data, dtype=TORCH_DTYPES[tensor.dtype])
    return flat.reshape(tensor.shape)


def saved(path: Path, root: object) -> Path:
    torch.save(root, path)
    return path


def assert_same(path: Path, expected: dict[str, torch.Tensor]) -> None:
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "pth"
        assert list(checkpoint.tensors) == list(expected)
        for name, tensor in checkpoint.tensors.items():
            assert tensor.shape == tuple(expected[name].shape)
            assert torch.equal(as_torch(tensor), expected[name].detach())


def weights(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"emb.weight": (7, 4), "blocks.0.att.x_r": (1, 1, 4), "ln_out.bias": (4,)}
    return {
        name: (torch.randn(shape, generator=generator) * 50).to(dtype)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("dtype", TORCH_DTYPES.values(), ids=TORCH_DTYPES)
def test_every_dtype_comes_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = weights(dtype)
    assert_same(saved(tmp_path / "m.pth", expected), expected)


def test_scalars_and_empty_tensors_come_back(tmp_path: Path) -> None:
    expected = {"a": torch.tensor(3), "b": torch.zeros(0, 3), "c": torch.ones(1)}
    assert_same(saved(tmp_path / "m.pth", expected), expected)


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_a_wrapped_dict_is_unwrapped_and_its_neighbors_are_notes(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path / "m.pth", {key: weights(), "epoch": 3, "note": "x", "opt": {"lr": 0.1}})
    assert_same(path, weights())
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.metadata == {"epoch": "3", "note": "x"}


def test_notes_of_a_converted_file_are_kept(tmp_path: Path) -> None:
    notes = {"_strategy": "cuda fp16i8 *10 -> cpu fp32", "_rescale_layer": 6, "_version": 0.7}
    with open_checkpoint(saved(tmp_path / "m.pth", {**weights(), **notes})) as checkpoint:
        assert checkpoint.metadata == {name: str(note) for name, note in notes.items()}
        assert len(checkpoint.tensors) == 3


def test_a_state_dict_of_a_module_comes_back(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5))
    state = module.state_dict()
    assert isinstance(state, OrderedDict)
    assert_same(saved(tmp_path / "m.pth", state), dict(state))


def test_parameters_are_tensors(tmp_path: Path) -> None:
    expected = {name: torch.nn.Parameter(tensor) for name, tensor in weights().items()}
    assert_same(saved(tmp_path / "m.pth", expected), dict(expected))


def test_two_tensors_may_share_a_storage(tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(6, 4)
    expected = {"whole": whole, "same": whole, "rows": whole[2:5], "flat": whole.view(-1)[5:]}
    assert_same(saved(tmp_path / "m.pth", expected), expected)


def test_a_transposed_matrix_is_straightened(tmp_path: Path) -> None:
    expected = {"a": torch.arange(30, dtype=torch.int16).reshape(5, 6).T, "b": torch.ones(2, 2).T}
    assert_same(saved(tmp_path / "m.pth", expected), expected)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**12),
        torch.zeros(8, 8)[:, :4],
        torch.zeros(2, 3, 4).transpose(0, 2),
        torch.zeros(9)[::2],
    ],
    ids=["expanded", "columns", "3-D", "stepped"],
)
def test_other_strides_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    content = saved(tmp_path / "m.pth", {"a": tensor}).read_bytes()
    assert "elements do not lie in a row: a" in refusal(tmp_path / "n.pth", content)


def test_many_transposed_views_of_one_storage_take_no_memory_until_asked_for(
    tmp_path: Path,
) -> None:
    view = torch.zeros(1000, 1001).T
    path = saved(tmp_path / "m.pth", {str(i): view for i in range(50)})
    tracemalloc.start()
    with open_checkpoint(path) as checkpoint:
        assert len(checkpoint.tensors) == 50
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_files_of_torch_1_are_read(tmp_path: Path) -> None:
    """One root called archive, no byteorder, no data descriptors, no zip64 records."""
    content = saved(tmp_path / "new.pth", {"a": torch.tensor([1.5, -2.0])}).read_bytes()
    start = content.index(b"\x80\x02}")
    program = content[start : content.index(b".PK", start) + 1]
    old = tmp_path / "old.pth"
    old.write_bytes(pth_bytes(program, {"0": b"\0\0\xc0\x3f\0\0\0\xc0"}))
    assert_same(old, {"a": torch.tensor([1.5, -2.0])})


def test_the_name_of_the_file_decides_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights (Eng98%) 中文.safetensors", weights())
    assert_same(path, weights())


def test_files_of_torch_before_1_6_are_refused(tmp_path: Path) -> None:
    torch.save(weights(), tmp_path / "m.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "m.pth").read_bytes()
    assert "was saved by torch before 1.6" in refusal(tmp_path / "n.pth", content)


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    members = [Member("m/data.pkl", b"}."), Member("m/code/__torch__.py", b"import os")]
    assert "TorchScript" in refusal(tmp_path / "m.pth", zip_bytes(members))


@pytest.mark.parametrize("size", [0, 4, 7, 9, 12])
def test_a_storage_of_another_size_than_announced_is_refused(tmp_path: Path, size: int) -> None:
    content = saved(tmp_path / "m.pth", {"a": torch.zeros(2)}).read_bytes()
    start = content.index(b"\x80\x02}")
    program = content[start : content.index(b".PK", start) + 1]
    message = refusal(tmp_path / "n.pth", pth_bytes(program, {"0": bytes(size)}))
    assert f"has {size} bytes instead of 8" in message


def test_a_storage_that_is_not_there_is_refused(tmp_path: Path) -> None:
    content = saved(tmp_path / "m.pth", {"a": torch.zeros(2)}).read_bytes()
    start = content.index(b"\x80\x02}")
    program = content[start : content.index(b".PK", start) + 1]
    assert "the data of a is missing" in refusal(tmp_path / "n.pth", pth_bytes(program))


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    members = [Member("m/data.pkl", b"\x80\x02}."), Member("m/byteorder", b"big")]
    assert "big-endian" in refusal(tmp_path / "m.pth", zip_bytes(members))


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ({}, "holds no tensors"),
        ([torch.zeros(1)], "holds no dict"),
        (torch.zeros(1), "holds no dict"),
        ({"a": torch.zeros(1), "b": [1]}, "no tensor: b"),
        ({"a": {"b": torch.zeros(1)}}, "no tensor: a"),
        ({"a": torch.zeros(1), 5: torch.zeros(1)}, "key that is no text"),
        ({"a\x1b[2J": torch.zeros(1)}, "unusable name"),
        ({"a" * 300: torch.zeros(1)}, "unusable name"),
    ],
)
def test_other_things_than_a_dict_of_tensors_are_refused(
    tmp_path: Path, root: object, reason: str
) -> None:
    content = saved(tmp_path / "m.pth", root).read_bytes()
    assert reason in refusal(tmp_path / "n.pth", content)


def test_a_file_cut_short_says_so_with_its_length(tmp_path: Path) -> None:
    content = saved(tmp_path / "m.pth", weights()).read_bytes()[:1000]
    message = refusal(tmp_path / "n.pth", content)
    assert "is cut short: 1000 bytes, the end of the archive is missing" in message


def test_damage_to_the_description_is_noticed(tmp_path: Path) -> None:
    content = saved(tmp_path / "m.pth", weights()).read_bytes()
    damaged = content.replace(b"emb.weight", b"emb.weighd", 1)
    assert "the checksum of data.pkl is wrong" in refusal(tmp_path / "n.pth", damaged)
