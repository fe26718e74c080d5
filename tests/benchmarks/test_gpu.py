"""What the GPU script measures, on kernels that run on the host and shapes that are tiny: that it
gets to its end, that bytes and shares are right, and that packed weights are what they should be.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle.cuda_card import fake_card
from oracle.cuda_device import HostDevice
from oracle.cuda_host import compiler
from oracle.packing import unpacked

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from gpu import batches, cards, child, equality, facts, models, passes, profile, speed
from gpu.packing import packed_panels, packed_rows
from gpu.steps import floor, recorded
from shapes import Shape

from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.weights import load_weights
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.native.cuda.loading import TYPES_OF
from rwkv_cli.native.cuda.structures import signatures
from rwkv_cli.native.library import is_available

needs_kernels = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
needs_native = pytest.mark.skipif(not is_available(), reason="there is no native library")

RANKS = {"w": 32, "a": 32, "v": 16, "g": 64}
TINY = {
    "v4": Shape("v4", 2, 128, 256, 200, 0.5),
    "v5": Shape("v5", 2, 128, 224, 200, 0.5),
    "v6": Shape("v6", 2, 128, 224, 200, 0.5, {"maa": 32, "w": 64}),
    "v7": Shape("v7", 2, 128, 512, 200, 0.88, RANKS),
}


class HostCards:
    """The host in place of a card; its clock runs everything once."""

    place = torch.device("cpu")

    def open(self, dtype: str, *, programmatic: bool = True) -> HostDevice:
        return HostDevice()

    def time(self, run: Callable[[], Any], seconds: float = 0.3) -> float:
        begin = time.perf_counter()
        run()
        return max(time.perf_counter() - begin, 1e-9)

    def wait(self) -> None:
        pass


def engine(version: str, dtype: str = "fp32") -> CudaEngine:
    weights = models.random_weights(TINY[version], dtype, HostCards.place)
    return CudaEngine(HostDevice(), weights)


# --- packing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 64), (130, 96), (257, 200), (48, 32)])
@pytest.mark.parametrize("layout", ["rows", "panels"])
@pytest.mark.parametrize(("dtype", "bound"), [("int8", 0.01), ("int4", 0.12)])
def test_matrices_are_packed_as_the_formats_say(
    dtype: str, bound: float, layout: str, shape: tuple[int, int]
) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    packed = {"rows": packed_rows, "panels": packed_panels}[layout](matrix, dtype)
    found = unpacked(packed.numpy(), dtype, layout, *shape)
    assert np.linalg.norm(found - matrix.numpy()) < bound * np.linalg.norm(matrix.numpy())


@needs_native
@pytest.mark.parametrize("version", TINY)
@pytest.mark.parametrize("dtype", ["fp16", "int8", "int4"])
def test_drawn_weights_have_the_forms_of_loaded_ones(
    version: str, dtype: str, tmp_path: Path
) -> None:
    from rwkv_cli.native.pool import Pool

    drawn = dict(models.tensors(TINY[version], HostCards.place))
    torch.save(drawn, tmp_path / "m.pth")
    pool = None if dtype == "fp16" else Pool(1)
    loaded = load_weights(open_model(tmp_path / "m.pth"), dtype, HostCards.place, pool)
    made = models.random_weights(TINY[version], dtype, HostCards.place)
    assert made.arch == loaded.arch
    assert made.dims == loaded.dims
    assert made.vectors.keys() == loaded.vectors.keys()
    for name, vector in loaded.vectors.items():
        assert torch.equal(made.vectors[name], vector), name
    assert made.matrices.keys() == loaded.matrices.keys()
    for name, matrix in loaded.matrices.items():
        other = made.matrices[name]
        assert (other.type, other.rows, other.cols) == (matrix.type, matrix.rows, matrix.cols)
        assert (other.by_input, other.data.dtype) == (matrix.by_input, matrix.data.dtype), name
        assert other.data.shape == matrix.data.shape, name
        if not matrix.packed and dtype == "fp16":
            assert torch.equal(other.data, matrix.data), name


# --- bytes --------------------------------------------------------------------------------------


@needs_kernels
def test_a_step_moves_the_weights_that_it_needs_and_the_states() -> None:
    one = engine("v7")
    fed = passes.Fed(one, [one.zero_state()], [[5]])
    steps = recorded(fed.program)
    assert [step.name for step in steps] == fed.program.program.names
    found = floor(steps)
    weights = one.weights
    dense = sum(
        matrix.data.numel() * 4
        for name, matrix in weights.matrices.items()
        if name not in ("emb.weight",) and not name.endswith("ffn.value.weight")
    )
    value = sum(step.live * 512 * 128 * 4 for step in steps if step.live is not None)
    states = 2 * 2 * 128 * 64 * 4
    assert found.bytes == pytest.approx(dense + value + states + 128 * 4)
    assert found.live is not None
    assert 0 < found.live < 0.5
    assert found.flops == 0
    assert found.seconds(1e3, 1e3) == found.bytes / 1e3


@needs_kernels
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_packed_weights_are_counted_as_they_lie(dtype: str) -> None:
    one = engine("v7", dtype)
    fed = passes.Fed(one, [one.zero_state()], [[5]])
    steps = [step for step in recorded(fed.program) if step.name == "dot_1"]
    head = one.weights.matrices["head.weight"]
    assert steps[-1].bytes == head.data.numel()
    assert steps[2].bytes == one.weights.matrices["blocks.0.ffn.key.weight"].data.numel()


@needs_kernels
def test_a_pass_over_many_tokens_counts_its_products() -> None:
    one = engine("v7")
    fed = passes.Fed(one, [one.zero_state()], [list(range(16))])
    steps = recorded(fed.program)
    products = [step for step in steps if step.launch is None]
    assert sum(step.flops for step in steps) == sum(step.flops for step in products)
    assert products[0].flops == 2 * 16 * 128 * 128
    assert products[0].bytes == 4 * (16 * 128 + 128 * 128 + 16 * 128)
    assert not {"launch", "product"} & vars(one.device).keys()


# --- parts --------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize(("version", "dtype"), [("v7", "int4")])
def test_everything_is_measured_of_a_model(
    version: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "STEPS", 4)
    monkeypatch.setattr(speed, "DRAWN", 4)
    host = HostCards()
    case = speed.Case("v7-1.5b", dtype, (1, 2, 9), (4, 16))
    ceilings = passes.Ceilings(host, 1 << 16, 64)
    found = dict(speed.measured(host, case, replace(TINY[version], layers=1), ceilings))
    names = {"decode 1", "decode 2", "decode 9", "prefill 4", "prefill 16"}
    assert names <= found.keys()
    assert not [one for one in found.values() if isinstance(one, dict) and "failed" in one]
    assert all(found[name]["tok/s"] > 0 for name in names)
    assert 0 < found["decode 1"]["live share"] < (0.5 if version == "v7" else 0.8)
    assert found["decode 1, drawn on the card"]["sampled tok/s"] > 0
    if dtype == "fp16":
        assert found["decode 1, plain launches"]["same bits"]
        assert found["decode 1"]["share wanted"] == 0.6
        assert found["decode 1"]["of the target"] > 0


@needs_kernels
def test_a_measurement_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(loop: speed.Loop) -> None:
        raise RuntimeError("no\nway")

    monkeypatch.setattr(speed, "STEPS", 4)
    monkeypatch.setattr(speed.Loop, "drawn", refuse)
    host = HostCards()
    case = speed.Case("v7-1.5b", "fp16", (1,), (4,))
    tiny = replace(TINY["v7"], layers=1)
    found = dict(speed.measured(host, case, tiny, passes.Ceilings(host, 1 << 16, 64)))
    assert found["decode 1, drawn on the card"] == {"failed": "RuntimeError: no way"}
    assert found["prefill 4"]["tok/s"] > 0


@needs_kernels
def test_the_time_of_a_pass_is_told_by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.SHAPES, "tiny", TINY["v7"])
    step = dict(profile.profiled(HostCards(), ("tiny", "fp16"), 1, 1))
    kinds = {name: found for name, found in step.items() if isinstance(found, dict)}
    assert sum(found["count"] for found in kinds.values()) == 1 + 5 * 2 + 1
    assert any(name.startswith("dot_1 (528 x 128)") for name in kinds), kinds.keys()
    assert all(found["us"] > 0 for found in kinds.values())
    chunk = dict(profile.profiled(HostCards(), ("tiny", "fp16"), 1, 16))
    assert any(name.startswith("product 16x128x512") for name in chunk), chunk.keys()


@needs_kernels
@needs_native
@pytest.mark.parametrize(("version", "dtype"), [("v4", "int8")])
def test_engines_are_compared(
    version: str, dtype: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RWKV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(equality, "GREEDY", 6)
    found = dict(equality.compared(HostCards(), version, dtype, 32))
    assert found["greedy"]["same tokens"] == "6 of 6"
    assert found["greedy"]["worst distance"] < 3e-3
    assert found["decode against prefill"] < 5e-3
    assert all(found["batches are singles"][name] for name in "2348")
    assert found["drawn on the card"] is True
    assert dtype == "int8" or found["moved to the CPU and back"] < 5e-3


@needs_kernels
def test_the_card_is_measured() -> None:
    found = dict(facts.ceilings(HostCards(), 1 << 16, 64))
    assert len(found) == 3
    assert facts.copy_bandwidth(HostCards(), 1 << 16) > 0
    chains = dict(facts.launches(HostCards(), 2, 64))
    assert len(chains) == 4
    device = HostDevice()
    facts.chain(device, 7, 64).run()
    assert device.launched == ["embed"] * 7


class Stopwatch:
    """An event of a card that is none."""

    def __init__(self, **how: bool) -> None:
        assert how == {"enable_timing": True}

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Stopwatch) -> float:
        return (end.at - self.at) * 1000


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cards.RealCards:
    """What measures a real card, on a driver and a compiler that are none."""
    fake_card(tmp_path, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda place: None)
    monkeypatch.setattr(torch.cuda, "Event", Stopwatch)
    monkeypatch.setattr(torch.cuda, "Stream", lambda place: None)
    return cards.RealCards()


def test_a_real_card_is_asked_for_its_registers(real: cards.RealCards) -> None:
    found = dict(facts.registers(real))
    assert set(signatures()) == {name.partition(" ")[0] for name in found}
    assert all(len(row) == 4 for row in found.values())
    times = dict(facts.compiling(real))
    assert times["bytes for fp16"] > 0
    assert real.open("fp16").programmatic
    assert not real.open("fp16", programmatic=False).programmatic
    assert real.kernels(TYPES_OF["fp16"]) is real.open("fp16").kernels


def test_what_the_sanitizer_watches_runs_nothing_before_it_is_fed(real: cards.RealCards) -> None:
    device, ran = child.Eager(real.place, real.kernels(TYPES_OF["fp16"])), []
    run = device.captured(lambda: ran.append(True))
    assert not ran
    run(), run()
    assert len(ran) == 2


def test_a_time_is_the_median_of_runs(real: cards.RealCards) -> None:
    runs: list[int] = []
    seconds = real.time(lambda: runs.append(time.sleep(0.004)), 0.05)
    assert 0.004 <= seconds < 0.1
    assert len(runs) >= 10


def test_every_case_names_a_shape() -> None:
    names: Iterator[str] = (name for name, *_ in profile.PASSES)
    assert {*names, *(case.name for case in speed.CASES)} <= models.SHAPES.keys()
    millions = {"v7-7.2b": 7199, "v5-1.5b": 1578}
    for name, count in millions.items():
        total = sum(np.prod(draw.shape) for draw in models.draws(models.SHAPES[name]))
        assert total / 1e6 == pytest.approx(count, rel=0.01)


@needs_kernels
def test_batches_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SHAPES": {"tiny": TINY["v7"]}, "STEPS": 1, "STEPS_ON_HOST": 1, "PROMPT": 5, "PROMPTS": 2,
        "LENGTH": 3, "READ": 20, "GENERATED": 7,
    }.items():  # fmt: skip
        monkeypatch.setattr(batches, name, value)
    found = dict(batches.measured(HostCards(), "tiny", sizes=(2, 9)))
    assert all("failed" not in measures for measures in found.values()), found
    assert found["9 sequences"]["sampled on the card, tok/s"] > 0
    assert {"together, ms", "apart, ms"} == set(found["9 and a prompt of 5"])
