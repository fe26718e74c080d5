"""The same model in every format gives the same logits, to the last bit where the precision is
the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.folders import (
    as_torch,
    fla_names,
    official_names,
    st_names,
    transformers_names,
    write_folder,
)
from oracle.ggml_files import TYPES, gguf_model, write_bin, write_gguf
from oracle.models import distance, load, random_tokens, save_pth
from oracle.weights import VERSIONS, Shape, Tensors, random_model
from safetensors.torch import save_file

from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.placement import is_coded
from rwkv_cli.native.library import is_available

# Heads of a size that has native code; the low ranks are no multiple of anything.
SHAPE = Shape(layers=3, heads=2, size=32, ffn=96, vocab=256, rank=5)
WIDE = Shape(layers=2, heads=4, size=64, ffn=512, vocab=256, rank=8)
ENGINE = "native" if is_available() else "torch"
TOKENS = random_tokens(256, 12)
Names = Callable[[Tensors, str], Tensors]


def logits(path: Path) -> np.ndarray:
    model = load(path, "fp32", engine=ENGINE)
    return model.engine.prefill(TOKENS, model.engine.zero_state())


def assert_same(path: Path, tensors: Tensors) -> None:
    """The file gives the logits that a plain .pth of these tensors gives, bit for bit where the
    engine does not care about the place of a tensor in memory: torch rounds differently by that.
    """
    if ENGINE == "native":
        plain = save_pth(tensors, path.parent / "plain.pth")
        np.testing.assert_array_equal(logits(path), logits(plain))
    else:
        assert_near(path, tensors)


def assert_near(path: Path, tensors: Tensors) -> None:
    """The file gives these logits but for rounding."""
    plain = save_pth(tensors, path.parent / "plain.pth")
    assert distance(logits(path), logits(plain)) < 1e-6


def model(version: str, dtype: torch.dtype = torch.float32, shape: Shape = SHAPE) -> Tensors:
    """A random model whose numbers a precision holds."""
    tensors = random_model(version, shape)
    if version == "v5.1":  # as World models have it, which .st files are made from
        for layer in range(shape.layers):
            bonus = tensors.pop(f"blocks.{layer}.att.time_first")
            tensors[f"blocks.{layer}.att.time_faaaa"] = bonus.reshape(-1)
            tensors[f"blocks.{layer}.att.time_decay"].shape = (-1,)
    return {n: torch.from_numpy(a).to(dtype).float().numpy() for n, a in tensors.items()}


FOLDERS = [
    *((version, transformers_names) for version in VERSIONS if version != "v7"),
    ("v7", official_names),
    ("v7", fla_names),
]


@pytest.mark.parametrize(("version", "names"), FOLDERS)
@pytest.mark.parametrize(("form", "shards"), [("safetensors", 3), ("bin", 1)])
def test_a_folder_of_transformers_is_the_same_model(
    tmp_path: Path, version: str, names: Names, form: str, shards: int
) -> None:
    tensors = model(version, torch.bfloat16)
    stored = names(tensors, version)
    folder = write_folder(
        stored, tmp_path / "m", form=form, shards=shards, dtype=torch.bfloat16, norm_eps=1e-5
    )
    assert_same(folder, tensors)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plain_safetensors_file_is_the_same_model(tmp_path: Path, version: str) -> None:
    tensors = model(version)
    save_file(as_torch(tensors, torch.float32), tmp_path / "m.safetensors")
    assert_same(tmp_path / "m.safetensors", tensors)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_ai00_is_the_same_model(tmp_path: Path, version: str) -> None:
    tensors = model(version, torch.float16)
    save_file(as_torch(st_names(tensors, version), torch.float16), tmp_path / "m.st")
    if version != "v5.1":
        assert_same(tmp_path / "m.st", tensors)
        return
    # Decays by head are repeated there, which makes an RWKV-5.2 of other steps.
    assert_near(tmp_path / "m.st", tensors)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_of_rwkv_cpp_is_the_same_model(tmp_path: Path, version: str) -> None:
    tensors = model(version)
    path = tmp_path / "m.bin"
    write_bin(tensors, version, path)
    if version in ("v6", "v7"):
        assert_same(path, tensors)
        return
    # Its decays are exponentials, whose logarithms are rounded once more.
    assert_near(path, tensors)


@pytest.mark.parametrize("version", ["v6", "v7"])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_gguf_file_is_the_same_model(tmp_path: Path, version: str, kind: str) -> None:
    every = 2 if version == "v6" else 0
    made = gguf_model(model(version), version, SHAPE, kind, rescale_every=every)
    assert_same(write_gguf(made, tmp_path / "m.gguf"), made.original)


@pytest.mark.parametrize("kind", TYPES)
def test_a_quantized_gguf_file_is_the_model_that_its_blocks_stand_for(
    tmp_path: Path, kind: str
) -> None:
    version = "v6" if kind in ("Q5_0", "Q5_K") else "v7"
    made = gguf_model(
        model(version, shape=WIDE), version, WIDE, kind, rescale_every=1 if version == "v6" else 0
    )
    path = write_gguf(made, tmp_path / "m.gguf")
    assert is_coded(open_model(path).checkpoint.tensors)
    assert_same(path, made.original)


@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_a_quantized_bin_file_is_the_model_that_its_blocks_stand_for(
    tmp_path: Path, version: str, kind: str
) -> None:
    path = tmp_path / "m.bin"
    tensors = write_bin(model(version), version, path, kind)
    assert is_coded(open_model(path).checkpoint.tensors)
    assert_near(path, tensors)


def test_a_file_with_whole_matrices_has_no_precision_of_its_own(tmp_path: Path) -> None:
    made = gguf_model(model("v7"), "v7", SHAPE, "F16")
    assert not is_coded(open_model(write_gguf(made, tmp_path / "m.gguf")).checkpoint.tensors)


def test_the_embedding_serves_as_head_where_the_config_says_so(tmp_path: Path) -> None:
    tensors = model("v4")
    tied = {**tensors, "head.weight": tensors["emb.weight"]}
    stored = transformers_names(tensors, "v4")
    del stored["head.weight"]
    folder = write_folder(stored, tmp_path / "m", tie_word_embeddings=True)
    assert_same(folder, tied)


def test_a_tuned_state_in_a_file_of_ai00_is_turned_back(tmp_path: Path) -> None:
    shape = replace(SHAPE, layers=1)
    rng = np.random.default_rng(3)
    for version in ("v5.2", "v6", "v7"):
        tensors = model(version, torch.float16, shape)
        state = rng.integers(-64, 64, (shape.heads, shape.size, shape.size)).astype(np.float32) / 64
        tensors["blocks.0.att.time_state"] = state
        path = tmp_path / f"{version}.st"
        save_file(as_torch(st_names(tensors, version), torch.float16), path)
        found = open_model(path).checkpoint.tensors["blocks.0.att.time_state"].plain()
        values = np.frombuffer(found.data, "<f2").reshape(state.shape)
        np.testing.assert_array_equal(values, state, err_msg=version)
