"""Plans: what they say is what happens, and what is chosen fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.headers import hollow_model
from oracle.models import needs_native, save_pth
from oracle.weights import VERSIONS, Shape, random_model

from rwkv_cli.checkpoints.tensors import Checkpoint, RawTensor
from rwkv_cli.engine.estimate import Plan, estimate
from rwkv_cli.engine.footprint import native_footprint, torch_footprint
from rwkv_cli.engine.memory import Card, Machine
from rwkv_cli.engine.modelfile import ModelFile, open_model
from rwkv_cli.engine.native_weights import load_tensors
from rwkv_cli.engine.packing import write_packed
from rwkv_cli.engine.plan import automatic, choose, plan_for
from rwkv_cli.engine.segments import Place, Segment, parse_segments, places, settle, written
from rwkv_cli.engine.strategy import Budgets, Strategy
from rwkv_cli.engine.torch_engine import TorchEngine
from rwkv_cli.engine.torch_split import split_engine
from rwkv_cli.engine.torch_stream import Immediate, Streamed, Waiting
from rwkv_cli.engine.torch_weights import load_stack
from rwkv_cli.errors import LimitError, UsageError
from rwkv_cli.native.pool import Pool
from rwkv_cli.ops.quantized import Quantized

GB = 10**9
# Wide enough that what fills the gaps between tensors does not count.
SHAPE = Shape(layers=4, heads=2, size=64, ffn=448, vocab=512, rank=16)
FAST = Machine(64 * GB, 40e9, (Card("cuda:0", "a card", 24 * GB, 900e9, 25e9),))

counts = st.sampled_from([None, 0, 1, 2, 3, 5])
segments = st.lists(
    st.builds(
        Segment,
        st.sampled_from(["cuda", "cuda:1", "cpu", "mps"]),
        st.sampled_from(["fp32", "bf16", "fp16"]),
        st.sampled_from([None, None, 8, 4]),
        counts,
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFile]:
    folder = tmp_path_factory.mktemp("planned")
    return {
        version: open_model(save_pth(random_model(version, SHAPE), folder / f"{version}.pth"))
        for version in VERSIONS
    }


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    """An RWKV-7 of 13 billion parameters: 27 GB."""
    return open_model(hollow_model(tmp_path_factory.mktemp("large") / "13b.st", "v7", 61, 4096))


def storages(thing: Any) -> Iterator[tuple[int, int]]:
    """Every piece of memory behind the tensors of something: which it is, and its bytes."""
    if isinstance(thing, torch.Tensor):
        storage = thing.untyped_storage()
        yield storage._cdata, storage.nbytes()
    elif isinstance(thing, Quantized):
        yield from storages(thing.codes)
        yield from storages(thing.scales)
    elif isinstance(thing, Waiting):
        yield from storages(thing.small)
        yield from storages(thing.flat)
    elif hasattr(thing, "__dict__"):
        for value in vars(thing).values():
            yield from storages(value)


def allocated(engine: TorchEngine) -> tuple[int, int]:
    """Bytes of an engine's weights, and of the buffers for what is streamed."""
    stack = engine.stack
    layers = stack.layers.layers if isinstance(stack.layers, Streamed) else stack.layers
    found = dict(storages(stack.emb)) | dict(storages(stack.ends))
    for layer in layers:
        found |= dict(storages(layer))
    buffers = stack.layers.buffers if isinstance(stack.layers, Streamed) else []
    return sum(found.values()), sum(b.nbytes for b in buffers)


@pytest.mark.parametrize("version", VERSIONS)
@settings(max_examples=12, deadline=None)
@given(segments, st.integers(-1, 3))
def test_a_plan_covers_every_layer_once_and_tells_the_bytes(
    opened: dict[str, ModelFile], version: str, found: list[Segment], streaming: int
) -> None:
    file, total = opened[version], SHAPE.layers + 1
    if 0 <= streaming < len(found) and found[streaming].count is not None:
        one = found[streaming]
        found[streaming] = Segment(one.device, one.floats, one.bits, one.count, streams=True)
    text = written(found)
    plan = plan_for(file, text, machine=FAST)
    assert sum(row.layers for row in plan.rows) == SHAPE.layers
    assert [row.what for row in plan.rows[:: len(plan.rows) - 1]] == ["embedding", "head"]
    again = plan_for(file, plan.strategy_text, machine=FAST)
    assert again == plan
    assert places(plan.segments, total) == places(parse_segments(text), total)
    # Every device is the CPU here; that some layers move to theirs, and how, stays.
    where = places(plan.segments, total)
    here = [Place("cpu", p.floats, p.bits, p.streamed) for p in where]
    weights, buffers = allocated(split_engine(file, here, lane=lambda _: Immediate()))
    as_torch = estimate(file, plan.segments, "torch", FAST)
    state = sum(row.state for row in plan.rows)
    assert as_torch.total - state == pytest.approx(weights, rel=0.02)
    moved = [layer.streamed for layer in torch_footprint(file, here, here[0].floats).layers]
    moved = [size for size in moved if size]
    assert min(2, len(moved)) * max(moved, default=0) == pytest.approx(buffers, rel=0.02)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", [None, "fp32", "bf16"])
def test_a_plan_tells_the_bytes_of_a_device_that_holds_everything(
    opened: dict[str, ModelFile], version: str, dtype: str | None
) -> None:
    file = opened[version]
    stack = load_stack(file.checkpoint, file.arch, file.dims, dtype, "meta")
    weights, _ = allocated(TorchEngine(stack, file.arch, file.dims, "meta"))
    plan = plan_for(file, f"mps {dtype or 'fp32'}", machine=FAST)
    assert plan.engine == "torch"
    assert plan.total - sum(row.state for row in plan.rows) == pytest.approx(weights, rel=0.02)
    assert {row.device for row in plan.rows} == {"mps"}


@needs_native
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", [None, "fp32", "bf16", "fp16", "int8", "int4"])
def test_a_plan_tells_the_bytes_of_the_native_engine(
    opened: dict[str, ModelFile], version: str, dtype: str | None
) -> None:
    file = opened[version]
    sizes = native_footprint(file, dtype)
    planned = sum((*sizes.layers, sizes.head), sizes.embedding).resident
    made = load_tensors(file, dtype, Pool(1))
    assert planned == pytest.approx(sum(memoryview(t.data).nbytes for t in made), rel=0.02)


@needs_native
def test_a_file_of_fewer_bits_is_planned_as_it_is_run(
    opened: dict[str, ModelFile], tmp_path: Path
) -> None:
    whole = opened["v7"]

    def coded(raw: RawTensor) -> RawTensor:
        """Pretend that the matrices are made from other bytes each time they are asked for."""
        if len(raw.shape) < 2 or min(raw.shape[-2:]) < 2 or raw.name == "emb.weight":
            return raw
        kept = bytes(raw.data)
        return replace(raw, derive=lambda: memoryview(bytearray(kept)), coding="Q8_0")

    raws = [coded(raw) for raw in whole.checkpoint.tensors.values()]
    file = replace(whole, checkpoint=Checkpoint.in_memory(tmp_path / "coded", raws))
    on_torch, on_native = plan_for(file, "mps fp16", machine=FAST), choose(file, machine(64))
    stack = load_stack(file.checkpoint, file.arch, file.dims, "fp16", "meta")
    weights, _ = allocated(TorchEngine(stack, file.arch, file.dims, "meta"))
    assert on_torch.total - state_of(on_torch) == pytest.approx(weights, rel=0.02)
    assert (on_native.strategy_text, on_native.engine) == ("cpu fp16i8", "native")
    made = load_tensors(file, None, Pool(1))
    size = sum(memoryview(t.data).nbytes for t in made)
    assert on_native.total - state_of(on_native) == pytest.approx(size, rel=0.02)
    natural = load_stack(file.checkpoint, file.arch, file.dims, None, "cpu")
    assert natural.ends.head.dtype == torch.float16
    assert choose(file, machine(64, 40)).strategy_text == "cuda fp16i8"
    assert automatic(file, Strategy(auto=True))[0] == Strategy("cpu")


def state_of(plan: Plan) -> int:
    return sum(row.state for row in plan.rows)


def test_the_plan_of_a_model_of_13_billion_takes_less_than_a_second(large: ModelFile) -> None:
    for text in (None, "cuda fp16i8 *10 -> cuda fp16 *0+", "cpu fp16i4"):
        begin = perf_counter()
        plan_for(large, text, machine=FAST)
        assert perf_counter() - begin < 1


def machine(ram: float, vram: float | None = None, link: float = 25e9) -> Machine:
    cards = () if vram is None else (Card("cuda:0", "a card", int(vram * GB), 900e9, link),)
    return Machine(int(ram * GB), 40e9, cards)


@needs_native
@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (machine(64), "cpu bf16"),
        (machine(20), "cpu fp16i8"),
        (machine(12), "cpu fp16i4"),
        (machine(64, 40), "cuda fp16"),
        (machine(64, 20), "cuda fp16i8"),
        (machine(12, 8), "cuda fp16i8 *29+"),
        (machine(64, 8, link=60e9), "cuda fp16i8 *29+"),
        (machine(64, 8, link=1e9), "cpu bf16"),
        (machine(64, 0.2), "cpu bf16"),
    ],
)
def test_what_is_chosen_is_the_best_that_fits(
    large: ModelFile, here: Machine, expected: str
) -> None:
    plan = choose(large, here)
    assert plan.fits
    assert plan.strategy_text == expected
    assert plan.seconds_per_token
    natural = (here.cards[0].free or 0) > 30 * GB if here.cards else (here.free or 0) > 30 * GB
    assert bool(plan.why) != natural


@needs_native
def test_budgets_bound_what_is_chosen(large: ModelFile) -> None:
    rich = machine(200, 80)
    assert choose(large, rich).strategy_text == "cuda fp16"
    assert choose(large, rich, Budgets(vram=20 * GB)).strategy_text == "cuda fp16i8"
    assert choose(large, rich, Budgets(vram=0)).strategy_text == "cpu bf16"
    assert choose(large, rich, Budgets(vram=0, ram=20 * GB)).strategy_text == "cpu fp16i8"
    with pytest.raises(LimitError) as caught:
        choose(large, rich, Budgets(vram=0, ram=5 * GB))
    assert "not even as 'cpu fp16i4', which needs" in caught.value.message
    assert "would fit" in (caught.value.hint or "")


def test_a_plan_that_does_not_fit_says_what_is_missing(large: ModelFile) -> None:
    plan = plan_for(large, "cuda fp16", machine=machine(64, 8))
    assert not plan.fits
    assert plan.why == "needs 26.9 GB on cuda, where 8.0 GB are free"
    assert plan_for(large, "cuda:1 fp16", machine=machine(64, 8)).seconds_per_token is None


@needs_native
def test_a_packed_file_is_planned_whole(opened: dict[str, ModelFile], tmp_path: Path) -> None:
    path = tmp_path / "packed.safetensors"
    write_packed(opened["v7"], "int8", path, Pool(1))
    file = open_model(path)
    plan = choose(file, machine(64))
    assert (plan.engine, plan.strategy_text, plan.natural) == ("native", "cpu fp16i8", True)
    kept = sum(tensor.nbytes for tensor in file.packed.tensors.values()) if file.packed else 0
    assert plan.total - state_of(plan) == kept
    for text in ("cpu fp32 *1 -> cpu fp16", "cuda fp16 *0+"):
        with pytest.raises(UsageError, match="take it whole"):
            plan_for(file, text, machine=FAST)


def test_a_speed_that_nobody_knows_is_not_promised(opened: dict[str, ModelFile]) -> None:
    assert choose(opened["v7"], Machine(64 * GB)).seconds_per_token is None
    assert choose(opened["v7"], Machine()).fits


def test_small_models_stay_on_the_processor(opened: dict[str, ModelFile]) -> None:
    assert choose(opened["v7"], machine(64, 80)).segments[0].device == "cpu"


@needs_native
def test_a_strategy_follows_from_the_plan(
    large: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [machine(12, 8)]
    monkeypatch.setattr("rwkv_cli.engine.plan.this_machine", lambda threads: found[0])
    monkeypatch.setattr("rwkv_cli.engine.plan.torch_with_cuda", lambda: True)
    chosen, notice = automatic(large, Strategy(auto=True, threads=3))
    assert (chosen.threads, chosen.auto, written(chosen.segments)) == (3, False, "cuda fp16i8 *29+")
    assert notice is not None
    assert notice.startswith("Running as 'cuda fp16i8 *29+', since 'cuda fp16' needs")
    chosen, notice = automatic(large, Strategy(auto=True), cards=False)
    assert chosen == Strategy("cpu", "int4")
    found[0] = machine(64)
    assert automatic(large, Strategy(auto=True)) == (Strategy("cpu"), None)
    found[0] = machine(64, 48)
    monkeypatch.setattr("rwkv_cli.engine.plan.torch_with_cuda", lambda: False)
    chosen, notice = automatic(large, Strategy(auto=True))
    assert chosen == Strategy("cpu")
    assert notice == "Running on the CPU: torch is made without CUDA here, so a card is not used"


def test_what_is_streamed_costs_the_slower_of_copying_and_computing(large: ModelFile) -> None:
    def token(link: float) -> float:
        one = settle(parse_segments("cuda fp16 *0+"), 62)
        plan: Plan = estimate(large, one, "torch", machine(64, 24, link))
        assert plan.seconds_per_token
        return plan.seconds_per_token

    moved = sum(row.streamed for row in plan_for(large, "cuda fp16 *0+", machine=FAST).rows)
    assert token(10e9) == pytest.approx(moved / 10e9, rel=0.05)
    assert token(1e15) < moved / 100e9
