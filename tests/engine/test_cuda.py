"""The engine of a card, its kernels run on the CPU: every version and precision against float64,
and its laws.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle.cuda_device import any_device, cuda_model
from oracle.cuda_host import compiler
from oracle.float64 import Float64Model
from oracle.models import as_computed, distance, random_tokens, save_pth, tiny_model
from oracle.weights import SHAPES, VERSIONS, Shape, random_model, tuned_state

from rwkv_cli.arch.spec import get_arch
from rwkv_cli.engine.cuda.selftest import judge
from rwkv_cli.engine.model import Model
from rwkv_cli.errors import LimitError
from rwkv_cli.native.library import is_available

if compiler() is None or not is_available():
    pytest.skip("there is no C++ compiler, or no native library", allow_module_level=True)

# Of single tokens, whose inputs stay float32 (16 bits before packed weights), and of many at once,
# whose inputs are rounded to the planes' type; decisions allow 2e-3 there, which bf16 cannot hold.
DECODE = {"fp32": 1e-5, "bf16": 1e-5, "fp16": 1e-5, "int8": 2e-3, "int4": 2e-3}
PREFILL = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3, "int8": 3e-3, "int4": 3e-3}
TOKENS = 21  # a chunk of 16, one of 4, and one that is decoded

# Widths that are no multiples of 64, heads of other sizes, low ranks that are no multiples of 8.
NARROW = Shape(layers=2, heads=3, size=32, ffn=160, vocab=70, rank=5)
WIDE = Shape(layers=2, heads=1, size=128, ffn=288, vocab=50, rank=9)


@pytest.mark.parametrize("dtype", DECODE)
@pytest.mark.parametrize("version", VERSIONS)
def test_logits_equal_float64_on_the_same_weights(version: str, dtype: str, tmp_path: Path) -> None:
    shape = SHAPES["flat"]
    path = save_pth(random_model(version, shape, seed=3), tmp_path / "model.pth")
    tokens = random_tokens(shape.vocab, TOKENS)
    expected = Float64Model(version, as_computed(path, dtype)).run(tokens)
    model = cuda_model(path, dtype)
    state = model.zero_state()
    for token, wanted in zip(tokens[:3], expected, strict=False):
        row, state = model.decode(token, state)
        assert distance(row, wanted) < DECODE[dtype]
    model.engine.chunks = (16, 4)  # of packed models as well, which unpack for more alone
    whole, after = model.prefill(tokens)
    assert distance(whole, expected[-1]) < PREFILL[dtype]
    assert list(after.tokens) == tokens
    assert {"rows_mix", "dot_1", "value_1"} <= set(model.engine.device.launched)


@pytest.mark.parametrize("shape", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("version", ["v4", "v5.2", "v6", "v7"])
def test_odd_sizes_are_no_different(version: str, shape: Shape, tmp_path: Path) -> None:
    tensors = random_model(version, shape, seed=5)
    if version != "v4":
        tensors |= tuned_state(shape, seed=5)
    path = save_pth(tensors, tmp_path / "model.pth")
    tokens = random_tokens(shape.vocab, 21)
    expected = Float64Model(version, tensors).run(tokens)[-1]
    for dtype, bound in (("fp32", 1e-5), ("int8", 0.1)):
        model = cuda_model(path, dtype)
        model.engine.chunks = (16, 4)
        whole, _ = model.prefill(tokens)
        state = model.zero_state()
        for token in tokens:
            row, state = model.decode(token, state)
        assert distance(whole, expected) < bound
        assert distance(row, whole) < max(PREFILL[dtype], 1e-5)


@pytest.fixture(
    scope="module",
    params=[("v4", "fp16"), ("v5.2", "int8"), ("v6", "fp16"), ("v7", "fp16"), ("v7", "int4")],
    ids="-".join,
)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small model of each recurrence."""
    version, dtype = request.param
    path = tmp_path_factory.mktemp("small") / f"{version}.pth"
    return cuda_model(save_pth(random_model(version, NARROW), path), dtype)


def test_a_row_of_a_small_batch_equals_a_single_state_bit_for_bit(small: Model) -> None:
    starts = [small.decode(1 + i, small.zero_state())[1] for i in range(8)]
    singles = [small.decode(9 + i, state)[0] for i, state in enumerate(starts)]
    for batch in (2, 3, 8):
        logits, after = small.decode(list(range(9, 9 + batch)), starts[:batch])
        assert np.array_equal(logits, np.stack(singles[:batch]))
    again, _ = small.decode(5, after[2])
    alone = small.decode(5, small.decode(11, starts[2])[1])[0]
    assert np.array_equal(again, alone)


def test_a_row_of_a_large_batch_does_not_depend_on_the_others(small: Model) -> None:
    start = small.decode(3, small.zero_state())[1]
    others = [small.decode(4 + i, small.zero_state())[1] for i in range(11)]
    few, _ = small.decode([7] * 9, [start] * 9)
    many, after = small.decode([7, *range(11)], [start, *others])
    assert np.array_equal(many[0], few[0])
    assert np.array_equal(few, np.repeat(few[:1], 9, axis=0))
    single, _ = small.decode(7, start)
    assert distance(many[0], single) < 1e-2
    assert all(len(state.tokens) == 2 for state in after)


def test_a_state_that_was_read_from_is_as_it_was(small: Model) -> None:
    _, state = small.prefill([1, 2, 3, 4, 5])
    before = {name: array.copy() for name, array in state.clone().arrays.items()}
    small.decode([6, 7], [state, state])
    small.prefill(list(range(1, 21)), state)
    assert all(np.array_equal(state.arrays[name], array) for name, array in before.items())


def test_save_load_and_continue_equals_the_uninterrupted_run(small: Model, tmp_path: Path) -> None:
    tokens = random_tokens(small, 26)
    _, state = small.prefill(tokens[:22])
    path = tmp_path / "a.rwkvstate"
    state.save(path)
    loaded = small.load_state(path)
    for token in tokens[22:]:
        row, state = small.decode(token, state)
        other, loaded = small.decode(token, loaded)
        assert np.array_equal(row, other)
    assert all(np.array_equal(state.arrays[n], a) for n, a in loaded.arrays.items())


@pytest.mark.parametrize("version", VERSIONS)
def test_states_move_between_a_card_and_a_cpu(version: str, tmp_path: Path) -> None:
    cpu = tiny_model(tmp_path, version, NARROW, engine="native")
    card = cuda_model(cpu.path, "fp32")
    tokens = random_tokens(cpu, 24)
    uninterrupted, _ = cpu.prefill(tokens)
    _, state = card.prefill(tokens[:10])
    _, state = cpu.prefill(tokens[10:15], state)
    _, state = card.prefill(tokens[15:19], state)
    logits, _ = cpu.prefill(tokens[19:], state)
    assert distance(logits, uninterrupted) < 1e-5


def test_more_states_than_the_kernels_take_are_refused_where_nothing_else_can(
    tmp_path: Path,
) -> None:
    path = save_pth(random_model("v7", NARROW), tmp_path / "m.pth")
    model = cuda_model(path, "fp32", reads=False)
    states = [model.zero_state() for _ in range(9)]
    with pytest.raises(LimitError, match="at most 8 states"):
        model.decode([1] * 9, states)


def test_a_batch_that_does_not_fit_a_block_goes_another_way(tmp_path: Path) -> None:
    path = save_pth(random_model("v7", NARROW), tmp_path / "m.pth")
    whole = cuda_model(path, "fp32")
    small = cuda_model(path, "fp32", shared=60 << 10)
    assert small.engine.batches == (1, 2, 4)
    tokens = [1, 2, 3, 4, 5]
    states = [whole.zero_state() for _ in tokens]
    expected, _ = whole.decode(tokens, states)
    logits, _ = small.decode(tokens, states)
    assert distance(logits, expected) < 1e-5
    assert "dot_8" not in small.engine.device.launched


@pytest.mark.parametrize(("version", "dtype"), [("v4", "int8"), ("v6", "fp32"), ("v7", "int4")])
def test_right_kernels_pass_the_self_test(version: str, dtype: str) -> None:
    verdict = judge(any_device(), get_arch(version), 32, dtype)
    assert verdict.decodes
    assert verdict.reads
    assert verdict.why is None


@pytest.mark.parametrize(
    ("broken", "decodes", "reads"),
    [("value_1", False, True), ("head7_32", False, True), ("scan7_32", True, False),
     ("rows_relu2", True, False), ("embed", False, False)],
)  # fmt: skip
def test_a_wrong_kernel_is_named_and_switched_off(broken: str, decodes: bool, reads: bool) -> None:
    verdict = judge(any_device(broken=broken), get_arch("v7"), 32, "fp32")
    assert (verdict.decodes, verdict.reads) == (decodes, reads)
    assert verdict.why is not None
    assert ("decode" in verdict.why, "prefill" in verdict.why) == (not decodes, not reads)


def test_an_engine_does_without_the_kernels_that_are_off(tmp_path: Path) -> None:
    path = save_pth(random_model("v6", NARROW), tmp_path / "m.pth")
    whole = cuda_model(path, "fp32")
    tokens = random_tokens(whole, 9)
    expected, _ = whole.prefill(tokens)
    for off in ("decodes", "reads"):
        model = cuda_model(path, "fp32", **{off: False})
        logits, _ = model.prefill(tokens)
        assert distance(logits, expected) < 1e-5
        used = set(model.engine.device.launched)
        assert ("dot_1" in used, "rows_mix" in used) == (off == "reads", off == "decodes")
