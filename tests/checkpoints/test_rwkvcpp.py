"""What rwkv.cpp's converter did to a BlinkDL checkpoint is undone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.tensors import RawTensor
from rwkv_cli.errors import RefusedError
from tests.checkpoints.files import ggmf_bytes, refusal

Array = npt.NDArray[np.floating]
Tensors = dict[str, Array]

NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2"}
L, V, C, H, N, D = 2, 5, 8, 2, 4, 3
COMMON = {"ln1.weight": (C,), "ln2.bias": (C,), "ffn.key.weight": (2 * C, C)}
# Shapes of one block as BlinkDL's training code makes them.
BLOCKS: dict[str, dict[str, tuple[int, ...]]] = {
    "v4": {
        "att.time_decay": (C,),
        "att.time_first": (C,),
        "att.time_mix_k": (1, 1, C),
        "ffn.time_mix_r": (1, 1, C),
        "att.key.weight": (C, C),
    },
    "v5.0": {
        "att.time_decay": (H,),
        "att.time_first": (H,),
        "att.time_mix_k": (1, 1, C),
        "att.ln_x.weight": (C,),
    },
    "v5.1": {
        "att.time_decay": (H,),
        "att.time_first": (H,),
        "att.time_mix_g": (1, 1, C),
        "att.ln_x.weight": (C,),
        "att.gate.weight": (C, C),
    },
    "v5.2": {
        "att.time_decay": (H, N),
        "att.time_faaaa": (H, N),
        "att.time_mix_g": (1, 1, C),
        "att.ln_x.weight": (C,),
        "att.gate.weight": (C, C),
    },
    "v6": {
        "att.time_maa_x": (1, 1, C),
        "ffn.time_maa_k": (1, 1, C),
        "att.time_maa_w1": (C, 5 * D),
        "att.time_maa_w2": (5, D, C),
        "att.time_decay": (1, 1, C),
        "att.time_decay_w1": (C, D),
        "att.time_decay_w2": (D, C),
        "att.time_faaaa": (H, N),
        "att.ln_x.weight": (C,),
        "att.gate.weight": (C, C),
    },
    "v7": {
        **{f"att.x_{mix}": (1, 1, C) for mix in "rwkvag"},
        **{f"att.{low}0": (1, 1, C) for low in "wav"},
        **{f"att.{low}1": (C, D) for low in "wavg"},
        **{f"att.{low}2": (D, C) for low in "wavg"},
        "att.k_k": (1, 1, C),
        "att.r_k": (H, N),
        "att.ln_x.weight": (C,),
        "ffn.x_k": (1, 1, C),
    },
}


def model(version: str) -> Tensors:
    """A small model whose values float16 holds exactly."""
    rng = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {"emb.weight": (V, C)}
    for layer in range(L):
        for name, shape in {**COMMON, **BLOCKS[version]}.items():
            shapes[f"blocks.{layer}.{name}"] = shape
    shapes["head.weight"] = (V, C)
    return {
        name: (rng.integers(-2048, 2048, shape) / 512).astype(np.float32)
        for name, shape in shapes.items()
    }


def converted(tensors: Tensors, version: str, *, half: bool = False) -> bytes:
    """The file that rwkv.cpp's script makes of a checkpoint, step by step as it goes."""
    joined: Tensors = {}
    for name, value in tensors.items():
        block, mix, _ = name.partition("att.x_")
        target = f"{block}att.x_rwkvag" if mix else name
        joined[target] = np.concatenate([joined[target], value]) if target in joined else value
    stored = []
    for name, value in joined.items():
        value = value.squeeze() if ".time_" in name else value
        value = _transformed(name.split(".", 2)[-1], value, version).astype(np.float32)
        keep = any(part in name for part in (".time_", "0", ".k_k", ".r_k", ".x_")) and (
            "weight" not in name
        )
        narrow = half and value.ndim > 1 and not keep
        data = value.astype(np.float16) if narrow else value
        stored.append((name, int(narrow), value.shape, data.tobytes()))
    return ggmf_bytes(stored, (0x67676D66, 101, V, C, L, int(half)))


def _transformed(part: str, value: Array, version: str) -> npt.NDArray[np.floating]:
    if version == "v7" and part[-2:] in {f"{low}{end}" for low in "wavg" for end in "12"}:
        return value.T
    if version == "v6":
        if part in {"att.time_maa_w1", "att.time_maa_w2", "att.time_decay_w1", "att.time_decay_w2"}:
            return value.swapaxes(-1, -2)
        if part == "att.time_decay":
            return value.reshape(H, -1, 1)
    if version.startswith("v5"):
        if part == "att.time_decay":
            decay = np.asarray(np.exp(-np.exp(value)))
            return decay[..., None] if version in ("v5.1", "v5.2") else decay.reshape(-1, 1, 1)
        if part == "att.time_first":
            return np.asarray(np.exp(value)).reshape(-1, 1, 1)
    if part == "att.time_faaaa":
        return value[..., None]
    if version == "v4" and part == "att.time_decay":
        return -np.exp(value)
    return value


def as_numpy(tensor: RawTensor) -> npt.NDArray[np.floating]:
    return np.frombuffer(tensor.plain().data, NUMPY_DTYPES[tensor.dtype]).reshape(tensor.shape)


@pytest.mark.parametrize("half", [False, True], ids=["FP32", "FP16"])
@pytest.mark.parametrize("version", BLOCKS)
def test_names_shapes_and_values_are_those_of_the_original(
    tmp_path: Path, version: str, half: bool
) -> None:
    expected = model(version)
    path = tmp_path / "m.bin"
    path.write_bytes(converted(expected, version, half=half))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "rwkv.cpp"
        assert list(checkpoint.tensors) == list(expected)
        for name, tensor in checkpoint.tensors.items():
            assert tensor.shape == expected[name].shape, name
            exact = "time_decay" not in name and "time_first" not in name
            rtol = 0 if exact else 1e-4
            np.testing.assert_allclose(as_numpy(tensor), expected[name], rtol=rtol, err_msg=name)


def test_decays_rounded_to_the_edge_stay_finite(tmp_path: Path) -> None:
    expected = model("v5.0")
    expected["blocks.0.att.time_decay"][:] = (-40, 40)
    path = tmp_path / "m.bin"
    path.write_bytes(converted(expected, "v5.0"))
    with open_checkpoint(path) as checkpoint:
        decay = as_numpy(checkpoint.tensors["blocks.0.att.time_decay"])
    assert np.isfinite(decay).all()
    np.testing.assert_allclose(np.exp(-np.exp(decay)), [1, 0], atol=1e-7)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_decays_that_cannot_be_are_refused(tmp_path: Path, value: float) -> None:
    stored = [
        ("emb.weight", 0, (5, 4), bytes(80)),
        ("blocks.0.att.time_decay", 0, (1,), np.float32(value).tobytes()),
    ]
    path = tmp_path / "m.bin"
    path.write_bytes(ggmf_bytes(stored))
    with open_checkpoint(path) as checkpoint, pytest.raises(RefusedError) as caught:
        checkpoint.tensors["blocks.0.att.time_decay"].plain()
    assert "blocks.0.att.time_decay has a shape, type or values" in caught.value.message


E_ROW = ("emb.weight", 0, (5, 4), bytes(80))
B_ROW = ("blocks.0.ln1.weight", 0, (4,), bytes(16))


@pytest.mark.parametrize(
    ("rows", "head", "reason"),
    [
        ([E_ROW], (0x67676D66, 99, 5, 4, 0, 0), "version 99"),
        ([E_ROW], (0x67676D66, 100, 5, 4, 0, 8), "is quantized as Q5_1 in a layout"),
        ([E_ROW], (0x67676D66, 101, 5, 4, 0, 4), "Q4_1_O, a type that ggml gave up"),
        ([E_ROW], (0x67676D66, 101, 5, 4, 0, 5), "Q4_2, a type that ggml gave up"),
        ([E_ROW], (0x67676D66, 101, 5, 4, 0, 77), "unknown type 77"),
        ([E_ROW], (0x67676D66, 101, 6, 4, 0, 0), "not those that its header announces"),
        ([E_ROW], (0x67676D66, 101, 5, 4, 1, 0), "not those that its header announces"),
        ([B_ROW], (0x67676D66, 101, 5, 4, 1, 0), "not those that its header announces"),
        ([E_ROW, E_ROW], (0x67676D66, 101, 5, 4, 0, 0), "names emb.weight twice"),
        ([("a", 6, (4,), bytes(4))], (0x67676D66, 101, 5, 4, 0, 0), "Q4_3"),
        ([("a", 9, (4,), bytes(4))], (0x67676D66, 101, 5, 4, 0, 0), "no multiple of 32"),
        ([("a", 9, (64,), bytes(67))], (0x67676D66, 101, 5, 4, 0, 0), "needs 68 bytes"),
        ([("a", 0, (), bytes(4))], (0x67676D66, 101, 5, 4, 0, 0), "no tensor at byte 24"),
        ([("", 0, (1,), bytes(4))], (0x67676D66, 101, 5, 4, 0, 0), "no tensor at byte 24"),
        ([("a\x07", 0, (1,), bytes(4))], (0x67676D66, 101, 5, 4, 0, 0), "unusable name"),
        ([("a", 0, (0,), b"")], (0x67676D66, 101, 5, 4, 0, 0), "impossible shape"),
        ([("a", 0, (-1, -4), bytes(16))], (0x67676D66, 101, 5, 4, 0, 0), "impossible shape"),
        ([("a", 0, (2**31 - 1,) * 4, b"")], (0x67676D66, 101, 5, 4, 0, 0), "tensor a at byte"),
    ],
)
def test_files_that_lie_are_refused(
    tmp_path: Path,
    rows: list[tuple[str, int, tuple[int, ...], bytes]],
    head: tuple[int, ...],
    reason: str,
) -> None:
    assert reason in refusal(tmp_path / "m.bin", ggmf_bytes(rows, head))


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 40])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    content = ggmf_bytes([E_ROW, B_ROW])[:-cut]
    assert "is " in refusal(tmp_path / "m.bin", content)


def test_joined_mixes_stay_mapped(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(converted(model("v7"), "v7"))
    with open_checkpoint(path) as checkpoint:
        mixes = [checkpoint.tensors[f"blocks.1.att.x_{mix}"].data for mix in "rwkvag"]
        assert (
            len({id(mix.obj) for mix in mixes} | {id(checkpoint.tensors["emb.weight"].data.obj)})
            == 1
        )


@pytest.mark.parametrize(
    ("name", "tensors", "layers"),
    [
        ("tiny-rwkv-4v0-660K-FP32.bin", 78, 4),
        ("tiny-rwkv-7v0-834K-FP32.bin", 399, 12),
        ("tiny-rwkv-7v0-834K-FP16.bin", 399, 12),
        ("tiny-rwkv-4v0-660K-Q5_1.bin", 78, 4),
        ("tiny-rwkv-7v0-834K-Q5_1.bin", 399, 12),
    ],
)
def test_trained_files_are_read(shared_data: Path, name: str, tensors: int, layers: int) -> None:
    with open_checkpoint(shared_data / name) as checkpoint:
        assert len(checkpoint.tensors) == tensors
        assert f"blocks.{layers - 1}.ffn.value.weight" in checkpoint.tensors
        for tensor in checkpoint.tensors.values():
            assert np.isfinite(as_numpy(tensor)).all()


def test_trained_halves_agree_with_trained_floats(shared_data: Path) -> None:
    with (
        open_checkpoint(shared_data / "tiny-rwkv-7v0-834K-FP32.bin") as whole,
        open_checkpoint(shared_data / "tiny-rwkv-7v0-834K-FP16.bin") as half,
    ):
        assert list(whole.tensors) == list(half.tensors)
        for name, tensor in whole.tensors.items():
            np.testing.assert_allclose(as_numpy(half.tensors[name]), as_numpy(tensor), atol=1e-3)
