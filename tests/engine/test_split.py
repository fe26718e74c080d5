"""Models whose layers lie on several devices, or are streamed: the same bits as in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.models import distance, load, needs_native, random_tokens, save_pth
from oracle.weights import VERSIONS, Shape, random_model, tuned_state

from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.modelfile import ModelFile, open_model
from rwkv_cli.engine.segments import Place, parse_segments, places
from rwkv_cli.engine.strategy import Strategy, parse_strategy
from rwkv_cli.engine.torch_engine import TorchEngine
from rwkv_cli.engine.torch_split import numerics, split_engine
from rwkv_cli.engine.torch_stream import Streamed, lane_of
from rwkv_cli.errors import UsageError
from rwkv_cli.native.pack import Matrix, pack, packed_bytes, unpack
from rwkv_cli.native.pool import Pool
from rwkv_cli.ops.products import linear
from rwkv_cli.ops.quantized import quantize

SHAPE = Shape(layers=5, heads=2, size=32, ffn=96, vocab=256, rank=8)
TOTAL = SHAPE.layers + 1

Files = Callable[[str], Path]
Arrays = list[np.ndarray]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A random model of each version, in bf16."""
    folder = tmp_path_factory.mktemp("split")

    def give(version: str) -> Path:
        path = folder / f"{version}.pth"
        if not path.exists():
            save_pth(random_model(version, SHAPE), path, "bf16")
        return path

    return give


def run(engine: TorchEngine) -> Arrays:
    """Everything an engine computes: of a prompt longer than a chunk, of a token, of a batch."""
    state = engine.zero_state()
    found = [engine.prefill(random_tokens(256, 300), state)]
    twin = state.clone()
    found.append(engine.decode([7], [state]))
    found.append(engine.decode([8, 9], [state, twin]))
    return [*found, *state.arrays.values(), *twin.arrays.values()]


def same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def ways(floats: str, bits: int | None) -> dict[str, list[Place]]:
    """Split, streamed from the first layer or a later one, one and two layers streamed."""
    stays = Place("cpu", floats, bits)
    moves, first, second = (
        replace(stays, **changes)  # type: ignore[arg-type]
        for changes in ({"streamed": True}, {"device": "cpu:0"}, {"device": "cpu:1"})
    )
    return {
        "split": [first, first, second, second, first, second],
        "all streamed": [moves] * 5 + [stays],
        "some streamed": [stays] + [moves] * 4 + [stays],
        "two streamed": [stays] * 3 + [moves] * 2 + [stays],
        "one streamed": [stays] * 4 + [moves, stays],
        "streamed and split": [first, moves, moves, moves, second, second],
    }


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("version", VERSIONS)
def test_split_and_streamed_runs_equal_the_unsplit_one_bit_for_bit(
    files: Files, version: str, bits: int | None
) -> None:
    file = open_model(files(version))
    for floats in ("fp16",) if bits else ("fp16", "fp32"):
        whole = split_engine(file, [Place("cpu", floats, bits)] * TOTAL)
        expected = run(whole)
        if bits is None:
            plain = load(files(version), floats).engine
            assert isinstance(plain, TorchEngine)
            assert same(run(plain), expected)
            assert plain.numerics == whole.numerics
        for where in ways(floats, bits).values():
            engine = split_engine(file, where)
            assert same(run(engine), expected)
            assert engine.numerics == whole.numerics


def test_layers_of_several_precisions_are_near_the_exact_ones(files: Files) -> None:
    file = open_model(files("v7"))
    text = "cpu fp16 *2 -> cpu bf16 *1 -> cpu fp32"
    engine = split_engine(file, places(parse_segments(text), TOTAL))
    exact = load(files("v7"), "fp32").engine
    assert isinstance(exact, TorchEngine)
    assert distance(run(engine)[0], run(exact)[0]) < 1e-5
    assert engine.numerics == "torch 2 x cpu fp16, 1 x cpu bf16, 3 x cpu fp32"


def test_numerics_tell_what_changes_bits_and_nothing_else() -> None:
    def name(text: str) -> str:
        return numerics(places(parse_segments(text), TOTAL))

    assert name("cuda fp16") == name("cuda:0 fp16 -> cuda:1 fp16") == name("cuda fp16 *2+")
    assert name("cuda fp16") == "cuda fp16"
    assert name("cuda fp16i8 *0+ -> cpu fp32 *1") == "5 x cuda fp16 int8, 1 x cpu fp32"
    assert name("cuda fp16 *2 -> cpu fp32") != name("cuda fp16 *3 -> cpu fp32")


class Recorded:
    """Notes what is copied when."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fail_at = -1

    def copy(self, slot: int, target: torch.Tensor, source: torch.Tensor) -> None:
        if len(self.events) == self.fail_at:
            raise KeyboardInterrupt
        target.copy_(source)
        self.events.append(f"copy to {slot}")

    def wait(self, slot: int) -> None:
        self.events.append(f"wait for {slot}")


def test_the_next_layer_is_sent_for_before_the_present_one_is_computed(files: Files) -> None:
    lane = Recorded()
    where = ways("fp32", None)["some streamed"]
    engine = split_engine(open_model(files("v7")), where, lane=lambda _: lane)
    state = engine.zero_state()
    engine.decode([1], [state])
    assert lane.events == [
        "copy to 0", "wait for 0", "copy to 1", "wait for 1", "copy to 0", "wait for 0",
        "copy to 1", "wait for 1", "copy to 0",
    ]  # fmt: skip
    lane.events.clear()
    engine.decode([1], [state])  # its first layer is there already
    assert lane.events[0] == "wait for 0"
    assert lane.events.count("copy to 0") + lane.events.count("copy to 1") == 4


class FakeModule:
    """Queues and events of a device that note what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.events = 0

    def current_stream(self, device: torch.device) -> FakeQueue:
        return FakeQueue(self, "computing")

    def Stream(self, device: torch.device) -> FakeQueue:
        return FakeQueue(self, "copying")

    def Event(self) -> FakeEvent:
        self.events += 1
        return FakeEvent(self, self.events)

    @contextmanager
    def stream(self, queue: FakeQueue) -> Iterator[None]:
        self.asked.append(f"{queue.name} begins")
        yield
        self.asked.append(f"{queue.name} ends")


@dataclass
class FakeQueue:
    module: FakeModule
    name: str

    def wait_stream(self, other: FakeQueue) -> None:
        self.module.asked.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: FakeEvent) -> None:
        self.module.asked.append(f"{self.name} waits for event {event.number}")


@dataclass
class FakeEvent:
    module: FakeModule
    number: int

    def record(self, queue: FakeQueue) -> None:
        self.module.asked.append(f"event {self.number} after {queue.name}")


def test_copies_wait_for_what_was_computed_and_computing_for_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = FakeModule()
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    lane = lane_of("cuda:1")
    target = torch.zeros(3)
    lane.copy(1, target, torch.ones(3))
    lane.wait(1)
    assert target.tolist() == [1, 1, 1]
    assert module.asked == [
        "copying waits for computing",
        "copying begins",
        "event 2 after copying",
        "copying ends",
        "computing waits for event 2",
    ]


@pytest.mark.parametrize(("way", "copies"), [("one streamed", 1), ("two streamed", 2)])
def test_what_the_buffers_hold_is_not_copied_again(files: Files, way: str, copies: int) -> None:
    engine = split_engine(open_model(files("v7")), ways("fp32", None)[way])
    run(engine)
    assert isinstance(engine.stack.layers, Streamed)
    assert engine.stack.layers.copies == copies


def test_a_pass_that_was_broken_off_leaves_the_engine_whole(files: Files) -> None:
    file, lane = open_model(files("v7")), Recorded()
    where = ways("fp32", None)["all streamed"]
    expected = run(split_engine(file, where))
    engine = split_engine(file, where, lane=lambda _: lane)
    for fail_at in range(9):
        lane.events.clear()
        lane.fail_at = fail_at
        try:
            engine.decode([1], [engine.zero_state()])
        except KeyboardInterrupt:
            lane.fail_at = -1
        assert same(run(engine), expected)


def test_a_state_moves_between_split_engines_and_others(files: Files, tmp_path: Path) -> None:
    file = open_model(files("v6"))
    whole = load(files("v6"), "fp32")
    split = split_engine(file, ways("fp32", None)["split"])
    state = whole.zero_state()
    whole.engine.prefill([1, 2, 3], state)
    state.save(tmp_path / "a.rwkvstate")
    there = whole.load_state(tmp_path / "a.rwkvstate")
    moved = split.decode([4], [there])
    assert np.array_equal(moved, whole.engine.decode([4], [state]))
    back = whole.engine.decode([5], [there])
    assert np.array_equal(back, split.decode([5], [state]))


def test_a_state_tuned_into_a_model_is_where_a_split_one_starts(tmp_path: Path) -> None:
    tensors = {**random_model("v7", SHAPE), **tuned_state(SHAPE)}
    path = save_pth(tensors, tmp_path / "tuned.pth")
    file: ModelFile = open_model(path)
    plain = load(path).engine
    assert isinstance(plain, TorchEngine)
    for where in ways("fp32", None).values():
        engine = split_engine(file, where)
        assert np.array_equal(engine.zero_state().arrays["wkv"], plain.zero_state().arrays["wkv"])
        assert same(run(engine), run(plain))


@needs_native
def test_8_bits_are_those_of_the_native_engine() -> None:
    weights = np.random.default_rng(0).normal(0, 0.05, (48, 96)).astype(np.float32)
    weights[3] = 0
    target = np.empty(packed_bytes("int8", "rows", 48, 96), np.uint8)
    pack(Pool(1), Matrix(weights, "F32", 48, 96), "int8", "rows", target)
    ours = quantize(torch.from_numpy(weights), 8, torch.float32).rows(0, 48, torch.float32)
    assert np.array_equal(ours.numpy(), unpack(target, "int8", "rows", (48, 96)))


@needs_native
def test_4_bits_lose_no_more_than_on_the_native_engine() -> None:
    weights = np.random.default_rng(0).normal(0, 0.05, (64, 256)).astype(np.float32)
    target = np.empty(packed_bytes("int4", "rows", 64, 256), np.uint8)
    theirs = pack(Pool(1), Matrix(weights, "F32", 64, 256), "int4", "rows", target)
    made = quantize(torch.from_numpy(weights), 4, torch.float32)
    assert distance(made.rows(0, 64, torch.float32).numpy(), weights) < theirs * 1.02


@pytest.mark.parametrize("bits", [8, 4])
def test_a_product_with_few_bits_is_that_with_the_widened_matrix(bits: int) -> None:
    weights, x = torch.randn(700, 640), torch.randn(3, 640)
    made = quantize(weights, bits, torch.float32)
    exact = x.double() @ made.rows(0, 700, torch.float32).double().t()
    assert distance(linear(x, made).numpy(), exact.numpy()) < 1e-6
    nothing = quantize(torch.zeros(2, 64), bits, torch.float32)
    assert not nothing.rows(0, 2, torch.half).any()


def test_torch_runs_few_bits_in_one_place_too(files: Files) -> None:
    exact, _ = load(files("v7"), "fp32").prefill([1, 2, 3])
    for dtype, bound in (("int8", 0.05), ("int4", 0.4)):
        model = load_model(files("v7"), Strategy("cpu", dtype, "torch"), tokenizer="bytes")
        assert model.engine.numerics == f"torch cpu bf16 {dtype}"
        assert distance(model.prefill([1, 2, 3])[0], exact) < bound


def test_segments_are_loaded_through_the_front_door(files: Files) -> None:
    strategy = parse_strategy("cpu fp16 *2 -> cpu fp32 *2 -> cpu bf16i8")
    model = load_model(files("v5.2"), strategy, tokenizer="bytes")
    assert model.engine.numerics.startswith("torch 2 x cpu fp16, 2 x cpu fp32, 2 x cpu bf16 int8")
    assert np.isfinite(model.prefill([1, 2, 3])[0]).all()
    with pytest.raises(UsageError, match="no mps here"):
        load_model(files("v7"), parse_strategy("cpu fp32 *1 -> mps fp16"), tokenizer="bytes")
