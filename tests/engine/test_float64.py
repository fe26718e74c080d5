"""Every version and precision against a float64 model on the same rounded weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.float64 import Float64Model
from oracle.models import DTYPES, TINY, distance, load, random_tokens, save_pth
from oracle.weights import SHAPES, VERSIONS, Tensors, random_model, tuned_state

from rwkv_cli.native.model import instruction_sets

TOLERANCE = 1e-5


def _rounded(tensors: Tensors, dtype: str) -> Tensors:
    """What a file of this precision holds, as float64."""
    return {
        name: torch.from_numpy(array).to(DTYPES[dtype]).double().numpy()
        for name, array in tensors.items()
    }


def _compare(
    engine: str, version: str, tensors: Tensors, dtype: str, folder: Path, tokens: list[int]
) -> None:
    """Check prefill and stepwise logits of a file against the oracle on the same weights."""
    model = load(save_pth(tensors, folder / "model.pth", dtype), dtype, engine=engine)
    assert model.engine.numerics == f"{_machine(engine)} {dtype}"
    expected = Float64Model(version, _rounded(tensors, dtype)).run(tokens)
    assert np.isfinite(expected).all()
    logits, _ = model.prefill(tokens)
    assert distance(logits, expected[-1]) < TOLERANCE
    state = model.zero_state()
    for token, row in zip(tokens, expected, strict=True):
        logits, state = model.decode(token, state)
        assert distance(logits, row) < TOLERANCE


def _machine(engine: str) -> str:
    return "torch cpu" if engine == "torch" else f"native {instruction_sets()[-1]}"


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("version", VERSIONS)
def test_logits_equal_float64_on_the_same_rounded_weights(
    version: str, dtype: str, tmp_path: Path, engine: str
) -> None:
    shape = SHAPES["flat"]
    tokens = random_tokens(shape.vocab, 37)
    _compare(engine, version, random_model(version, shape, seed=3), dtype, tmp_path, tokens)


@pytest.mark.parametrize("version", VERSIONS)
def test_fp16_survives_activations_beyond_its_range(
    version: str, tmp_path: Path, engine: str
) -> None:
    tensors = random_model(version, TINY, seed=4)
    for name in tensors:
        if name.endswith("ffn.key.weight"):
            tensors[name] *= 300
    oracle = Float64Model(version, _rounded(tensors, "fp16"))
    oracle.run(random_tokens(TINY.vocab, 3))
    assert all(memory["hidden"].max() > np.finfo(np.float16).max for memory in oracle.memory)
    _compare(engine, version, tensors, "fp16", tmp_path, random_tokens(TINY.vocab, 20))


@pytest.mark.parametrize("version", ["v5.0", "v5.1", "v5.2", "v6", "v7"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_tuned_state_is_where_the_zero_state_starts(
    version: str, dtype: str, tmp_path: Path, engine: str
) -> None:
    tensors = random_model(version, TINY, seed=5)
    plain = Float64Model(version, _rounded(tensors, dtype)).run([65])
    tensors |= tuned_state(TINY)
    assert distance(Float64Model(version, _rounded(tensors, dtype)).run([65]), plain) > 0.01
    _compare(engine, version, tensors, dtype, tmp_path, random_tokens(TINY.vocab, 20))


@pytest.mark.parametrize("version", ["v5.0", "v5.1", "v5.2", "v6"])
@pytest.mark.parametrize("name", ["time_faaaa", "time_first"])
def test_bonus_goes_by_either_name(version: str, name: str, tmp_path: Path, engine: str) -> None:
    tensors = random_model(version, TINY, seed=7)
    for key in [k for k in tensors if k.endswith(("att.time_faaaa", "att.time_first"))]:
        tensors[key.rpartition(".")[0] + "." + name] = tensors.pop(key)
    _compare(engine, version, tensors, "fp32", tmp_path, random_tokens(TINY.vocab, 9))
