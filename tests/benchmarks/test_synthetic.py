"""Synthetic models are what the comparison of speeds needs: stated sparsity, bounded values."""

from __future__ import annotations

import sys
from math import log
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from measure_models import measure
from shapes import MODELS, Shape, parameters
from synthetic import write

from rwkv_cli.engine.modelfile import open_model

TINY = {
    "v4": Shape("v4", 3, 256, 1024, 1000, 0.5),
    "v6": Shape("v6", 3, 256, 896, 1000, 0.5, {"maa": 32, "w": 64}),
    "v7": Shape("v7", 3, 256, 1024, 1000, 0.88, {"w": 32, "a": 32, "v": 16, "g": 64}),
}


@pytest.mark.parametrize("version", TINY)
def test_zeros_and_values_are_those_of_a_trained_model(version, tmp_path):
    path = tmp_path / "m.safetensors"
    write(TINY[version], path)
    seen = measure(path)
    assert np.mean(seen.zeros) == pytest.approx(TINY[version].zeros, abs=0.025)
    assert max(seen.residual) < 4
    assert 0.3 < seen.entropy < 0.7 * log(1000)


def test_a_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write(TINY["v7"], tmp_path / name, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(("name", "millions"), [("v7-0.1b", 191.0), ("v7-1.5b", 1527.4)])
def test_shapes_have_the_parameters_of_the_official_models(name, millions):
    count = sum(np.prod(draw.shape) for draw in parameters(MODELS[name]))
    assert count / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("version", ["v6", "v7"])
def test_gguf_holds_the_tensors_as_llama_cpp_wants_them(version, tmp_path):
    gguf = pytest.importorskip("gguf")
    from gguf_writer import write_gguf

    path, target = tmp_path / "m.safetensors", tmp_path / "m.F32.gguf"
    write(TINY[version], path)
    write_gguf(path, target, "F32")
    stored = {t.name: t for t in gguf.GGUFReader(target).tensors}
    raw = open_model(path).checkpoint.tensors

    def ours(name):
        bits = np.frombuffer(raw[name].data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(raw[name].shape)

    mixes = {"v6": "att.time_maa_{}", "v7": "att.x_{}"}[version]
    order = {"v6": "wkvrg", "v7": "rwkvag"}[version]
    low = {"v6": "att.time_decay_w1", "v7": "att.g1"}[version]
    theirs = {"v6": "time_mix_decay_w1", "v7": "time_mix_g1"}[version]
    fused = np.stack([ours("blocks.1." + mixes.format(x)).reshape(-1) for x in order])
    assert np.array_equal(stored["output.weight"].data, ours("head.weight"))
    assert np.array_equal(stored[f"blk.2.{theirs}.weight"].data, ours(f"blocks.2.{low}").T)
    assert np.array_equal(
        stored["blk.1.time_mix_lerp_fused.weight"].data.reshape(fused.shape), fused
    )
