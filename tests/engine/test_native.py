"""The native engine: every version, precision and instruction set against float64, and its laws,
which hold bit for bit.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.float64 import Float64Model
from oracle.models import TINY, as_computed, distance, load, random_tokens, save_pth, tiny_model
from oracle.weights import SHAPES, VERSIONS, Shape, random_model

from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import UsageError
from rwkv_cli.native.library import NativeError, is_available
from rwkv_cli.native.pool import Pool

if not is_available():
    pytest.skip("there is no native library", allow_module_level=True)

from rwkv_cli.native.largepages import move_in_background
from rwkv_cli.native.model import Config, NativeModel, choose_instruction_set, instruction_sets

DTYPES = ("fp32", "bf16", "fp16", "int8", "int4")
# decisions for quantized weights allow 1e-2; their inputs of 16 bits leave about 1e-4.
TOLERANCES = {"fp32": 1e-5, "bf16": 1e-5, "fp16": 1e-5, "int8": 2e-3, "int4": 2e-3}
TOKENS = 37


@pytest.fixture(params=instruction_sets())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each set of kernels that runs here."""
    choose_instruction_set(request.param)
    yield request.param
    choose_instruction_set(None)


@pytest.fixture(scope="module", params=[(v, d) for v in VERSIONS for d in DTYPES], ids="-".join)
def oracle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, list[np.ndarray]]:
    """A model of each version, a precision, and the logits of float64; of the sets of kernels all
    have the same.
    """
    version, dtype = request.param
    path = tmp_path_factory.mktemp("oracle") / "model.pth"
    save_pth(random_model(version, SHAPES["odd"], seed=3), path)
    tokens = random_tokens(SHAPES["odd"].vocab, TOKENS)
    return path, dtype, Float64Model(version, as_computed(path, dtype)).run(tokens)


def test_logits_equal_float64_on_the_same_weights(
    oracle: tuple[Path, str, list[np.ndarray]], isa: str
) -> None:
    path, dtype, expected = oracle
    tokens = random_tokens(SHAPES["odd"].vocab, TOKENS)
    model = load(path, dtype, engine="native", threads=2)  # test_native_bits: any number is alike
    assert model.engine.numerics == f"native {isa} {dtype}"
    state, logits = model.zero_state(), []
    for token in tokens:
        row, state = model.decode(token, state)
        logits.append(row)
    assert max(map(distance, logits, expected)) < TOLERANCES[dtype]
    whole, after = model.prefill(tokens)
    assert np.array_equal(whole, logits[-1])
    assert all(np.array_equal(after.arrays[n], a) for n, a in state.arrays.items())


@pytest.fixture(scope="module", params=[(v, d) for v in VERSIONS for d in ("bf16", "int8")])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small model of each version in two precisions."""
    version, dtype = request.param
    path = tmp_path_factory.mktemp("small") / f"{version}.pth"
    shape = Shape(layers=2, heads=2, size=32, ffn=224, vocab=256, rank=8)
    return load(save_pth(random_model(version, shape), path), dtype, engine="native", threads=2)


@settings(deadline=None, max_examples=8)
@given(cuts=st.lists(st.sampled_from((1, 2, 5, 6, 7, 11, 12, 13, 143, 144, 145)), max_size=4))
def test_any_split_of_a_prefill_gives_the_same_bits(small: Model, cuts: list[int]) -> None:
    tokens = random_tokens(small, 300)
    whole, after = small.prefill(tokens)
    state, start = small.zero_state(), 0
    for size in [*cuts, len(tokens)]:
        if start < len(tokens):
            logits, state = small.prefill(tokens[start : start + size], state)
            start += size
    assert np.array_equal(logits, whole)
    assert all(np.array_equal(state.arrays[n], a) for n, a in after.arrays.items())


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 12, 13, 64, 150])
def test_a_row_of_a_batch_equals_a_single_state(small: Model, batch: int) -> None:
    tokens = random_tokens(small, 3 * batch, seed=batch)
    starts = [small.prefill([1 + i % 200, 2])[1] for i in range(batch)]
    singles = [small.decode(tokens[i], s)[0] for i, s in enumerate(starts)]
    logits, _ = small.decode(tokens[:batch], starts)
    assert np.array_equal(logits, np.stack(singles))


def test_sequences_of_different_lengths_go_together(small: Model) -> None:
    lengths = [1, 13, 150, 2, 7]
    tokens = random_tokens(small, sum(lengths))
    states, singles, start = [small.zero_state() for _ in lengths], [], 0
    for length in lengths:
        singles.append(small.prefill(tokens[start : start + length])[0])
        start += length
    names = list(small.arch.state)
    arrays = [[state.arrays[name] for name in names] for state in states]
    logits = np.empty((len(lengths), small.dims.vocab), np.float32)
    small.engine.model.forward(tokens, lengths, arrays, list(logits))  # type: ignore[attr-defined]
    assert np.array_equal(logits, np.stack(singles))


@pytest.mark.parametrize("version", VERSIONS)
def test_states_move_between_the_engines(version: str, tmp_path: Path) -> None:
    torch_model = tiny_model(tmp_path, version, engine="torch")
    native_model = tiny_model(tmp_path, version, engine="native")
    tokens = random_tokens(TINY.vocab, 40)
    for here, there in ((torch_model, native_model), (native_model, torch_model)):
        expected, _ = here.prefill(tokens)
        _, state = here.prefill(tokens[:25])
        assert distance(there.prefill(tokens[25:], state)[0], expected) < 1e-5


@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("shift", [-3.0, 3.0])
def test_skipping_zero_inputs_changes_nothing(dtype: str, shift: float, tmp_path: Path) -> None:
    shape = Shape(layers=2, heads=2, size=64, ffn=1200, vocab=256, rank=8)
    tensors = random_model("v7", shape, seed=8)
    for layer in range(shape.layers):
        bias = tensors[f"blocks.{layer}.ln2.bias"]
        bias += 1
        tensors[f"blocks.{layer}.ffn.key.weight"] += shift / shape.width  # moves every key
    path = save_pth(tensors, tmp_path / "model.pth")
    tokens = random_tokens(256, 20)
    oracle = Float64Model("v7", as_computed(path, dtype))
    expected = oracle.run(tokens)
    share = np.mean([np.mean(memory["hidden"] == 0) for memory in oracle.memory])
    assert share > 0.8 if shift < 0 else share < 0.3
    model = load(path, dtype, engine="native")
    assert distance(model.prefill(tokens)[0], expected[-1]) < TOLERANCES[dtype]


def test_a_state_that_is_not_contiguous_is_not_misread(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, engine="native")
    _, state = model.prefill([5, 6])
    expected, _ = model.decode(7, state)
    other = state.clone()
    other.arrays["wkv"] = np.asfortranarray(other.arrays["wkv"])
    assert np.array_equal(model.engine.decode([7], [other])[0], expected)


def test_two_threads_may_use_one_model(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, engine="native")
    tokens = random_tokens(model, 200)
    expected, _ = model.prefill(tokens)
    seen: list[np.ndarray] = []
    workers = [
        threading.Thread(target=lambda: seen.append(model.prefill(tokens)[0])) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(seen) == 4
    assert all(np.array_equal(row, expected) for row in seen)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, engine="native")
    with pytest.raises(NativeError, match="outside the vocabulary"):
        model.engine.decode([TINY.vocab], [model.zero_state()])
    with pytest.raises(NativeError, match="missing"):
        NativeModel(Config(70, 1, 32, 32, 1, 32, 64, 64), [], Pool(1))
    with pytest.raises(NativeError, match="does not run"):
        choose_instruction_set("abacus")


def test_sizes_without_kernels_run_on_torch_and_say_so(tmp_path: Path) -> None:
    shape = Shape(layers=2, heads=2, size=8, ffn=64, vocab=256, rank=4)
    path = save_pth(random_model("v7", shape), tmp_path / "narrow.pth")
    model = load(path, engine=None)
    assert model.engine.numerics.startswith("torch")
    assert model.notice
    assert "multiples of 32" in model.notice
    with pytest.raises(UsageError, match="multiples of 32"):
        load(path, engine="native")


def test_a_native_run_never_imports_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from rwkv_cli.engine.load import *;"
        "from rwkv_cli.engine.modelfile import DEMO; m = load_model(DEMO, Strategy());"
        "m.prefill([70, 71]); assert m.engine.numerics.startswith('native');"
        "assert 'torch' not in sys.modules"
    )
    # Away from the checkout: the installed package is what is tested.
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux moves pages")
def test_moving_to_large_pages_changes_no_byte(tmp_path: Path) -> None:
    shape = Shape(layers=2, heads=16, size=64, ffn=4096, vocab=20_000, rank=16)
    tensors = random_model("v7", shape)
    path = save_pth(tensors, tmp_path / "large.pth")
    model = load_model(path, Strategy("cpu", None, "native"), tokenizer="bytes")
    raws = open_model(path).checkpoint.tensors
    before = {name: bytes(raw.data) for name, raw in raws.items()}
    tokens = random_tokens(256, 20)
    expected, _ = model.prefill(tokens)
    moving = move_in_background(raw.data for raw in raws.values())
    assert moving is not None
    for _ in range(3):
        assert np.array_equal(model.prefill(tokens)[0], expected)
    moving.join()
    assert all(bytes(raw.data) == before[name] for name, raw in raws.items())
