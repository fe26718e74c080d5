"""The native engine gives the same bits however a text is fed to it: in every precision, on every
instruction set that runs here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.float64 import Float64Model
from oracle.held import held_weights
from oracle.models import distance, load, needs_native, random_tokens, save_pth
from oracle.weights import SHAPES, VERSIONS, Shape, random_model

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.native_engine import CHUNK
from rwkv_cli.engine.state import State
from rwkv_cli.native.library import is_available
from rwkv_cli.native.model import choose_instruction_set, instruction_sets

pytestmark = needs_native

DTYPES = ("fp32", "bf16", "fp16", "int8", "int4")
SETS = instruction_sets() if is_available() else ["generic"]
THREADS = (1, 2, 3)
# Floats as the engine of torch. Quantized matrices multiply inputs that are rounded to 16 bits in
# groups of 32, which costs 1e-4 here; the 1e-2 that is promised would hide a broken kernel.
TOLERANCE = {"int8": 2e-3, "int4": 2e-3}
# Around the rows that one step of a kernel takes: 4 or 6 of floats, 12 of quantized; and of a pass.
BORDERS = (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 63, 64, 127, 128, 129, CHUNK - 1, CHUNK, CHUNK + 1)
LENGTH = 2 * CHUNK + 20


@dataclass(frozen=True)
class Case:
    """A model of one version, precision and instruction set, on each number of threads."""

    version: str
    dtype: str
    path: Path
    models: dict[int, Model]

    @property
    def model(self) -> Model:
        return self.models[2]


Key = tuple[str, str, str]
EVERY: list[Key] = [(v, d, s) for v in VERSIONS for d in DTYPES for s in SETS]
# For costly laws: each pair of a precision and an instruction set, with versions in turn.
PAIRS: list[Key] = [
    (VERSIONS[(i + j) % len(VERSIONS)], d, s)
    for i, d in enumerate(DTYPES)
    for j, s in enumerate(SETS)
]


_SHAPES = {**SHAPES, "small": Shape(layers=2, heads=3, size=64, ffn=224, vocab=77, rank=7)}


def _shape_of(version: str, dtype: str, kernels: str) -> str:
    if (dtype, kernels) == ("int4", "generic"):
        return "small"  # plain C++ takes ten times as long to unpack as to multiply
    return list(SHAPES)[(VERSIONS.index(version) + DTYPES.index(dtype)) % len(SHAPES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.fixture(autouse=True, scope="module")
def _best_kernels_afterwards() -> Iterator[None]:
    yield
    choose_instruction_set(None)


def _loaded(path: Path, dtype: str, kernels: str, threads: int) -> Model:
    choose_instruction_set(kernels)
    model = load(path, dtype, engine="native", threads=threads)
    choose_instruction_set(None)
    assert model.engine.numerics == f"native {kernels} {dtype}"
    return model


def _case(folder: Path, key: Key) -> Case:
    version, dtype, kernels = key
    shape = _shape_of(version, dtype, kernels)
    path = folder / f"{version}-{shape}.pth"
    if not path.exists():
        save_pth(random_model(version, _SHAPES[shape], seed=3), path)
    return Case(version, dtype, path, {n: _loaded(path, dtype, kernels, n) for n in THREADS})


@pytest.fixture(scope="module", params=EVERY, ids="-".join)
def case(request: pytest.FixtureRequest, folder: Path) -> Case:
    return _case(folder, request.param)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, folder: Path) -> Case:
    return _case(folder, request.param)


def _same(state: State, other: State) -> bool:
    """Whether two states are alike to the last bit."""
    return list(state.tokens) == list(other.tokens) and all(
        array.tobytes() == other.arrays[name].tobytes() for name, array in state.arrays.items()
    )


def _stepwise(model: Model, tokens: list[int]) -> tuple[list[bytes], State]:
    """Feed tokens one by one: the logits after each, and the state."""
    state = model.zero_state()
    return [model.engine.decode([token], [state])[0].tobytes() for token in tokens], state


def test_threads_and_repetitions_change_nothing(case: Case) -> None:
    tokens = random_tokens(case.model, 20)
    rows, state = _stepwise(case.models[1], tokens)
    for model in (case.models[1], case.models[2], case.models[3]):
        again, other = _stepwise(model, tokens)
        assert again == rows
        assert _same(other, state)
        logits, other = model.prefill(tokens[:17])
        assert logits.tobytes() == rows[16]
        for token, row in zip(tokens[17:], rows[17:], strict=True):
            assert model.advance([token], other).tobytes() == row
        assert _same(other, state)


@st.composite
def _splits(draw: st.DrawFn) -> list[int]:
    sizes: list[int] = []
    while (left := LENGTH - sum(sizes)) > 0:
        sizes.append(min(left, draw(st.sampled_from(BORDERS) | st.integers(1, LENGTH))))
    return sizes


def test_prefill_in_any_split_equals_stepwise(pair: Case) -> None:
    model, tokens = pair.model, random_tokens(pair.model, LENGTH)
    rows, stepwise = _stepwise(model, tokens)

    @settings(max_examples=5, deadline=None, derandomize=True, database=None)
    @given(_splits())
    def law(sizes: list[int]) -> None:
        state = model.zero_state()
        for size in sizes:
            logits = model.advance(tokens[state.position :][:size], state)
            assert logits.tobytes() == rows[state.position - 1]
        assert _same(state, stepwise)

    law()


def test_prefill_of_every_size_equals_stepwise(pair: Case) -> None:
    tokens = random_tokens(pair.model, max(BORDERS))
    rows, _ = _stepwise(pair.model, tokens)
    for size in BORDERS:
        logits, _ = pair.models[1 + size % 3].prefill(tokens[:size])
        assert logits.tobytes() == rows[size - 1], size


def test_batch_row_equals_single(pair: Case) -> None:
    model, most = pair.model, CHUNK + 2
    tokens = random_tokens(model, most)
    states = [model.prefill(random_tokens(model, 1 + row % 3, row))[1] for row in range(most)]
    alone = [model.decode(token, state) for token, state in zip(tokens, states, strict=True)]
    for count in (1, 2, 3, 7, 12, 13, 64, most):
        logits, after = model.decode(tokens[:count], states[:count])
        for row in range(count):
            assert logits[row].tobytes() == alone[row][0].tobytes(), (count, row)
            assert _same(after[row], alone[row][1]), (count, row)


def test_sequences_of_mixed_lengths_equal_single_ones(pair: Case) -> None:
    model = pair.model
    lengths = [1, CHUNK + 2, 7, CHUNK, 3, 1, 260, 2]
    texts = [random_tokens(model, length, seed) for seed, length in enumerate(lengths)]
    states = [model.prefill(random_tokens(model, 5, 50 + s))[1] for s in range(len(lengths))]
    alone = [model.prefill(text, state) for text, state in zip(texts, states, strict=True)]
    arrays = [[state.arrays[name] for name in model.arch.state] for state in states]
    logits = np.empty((len(lengths), model.dims.vocab), np.float32)
    tokens = [t for text in texts for t in text]
    model.engine.model.forward(tokens, lengths, arrays, list(logits))
    for row, (expected, state) in enumerate(alone):
        assert logits[row].tobytes() == expected.tobytes()
        wanted = [state.arrays[name] for name in model.arch.state]
        assert all(a.tobytes() == b.tobytes() for a, b in zip(arrays[row], wanted, strict=True))


@pytest.mark.parametrize("share", ["most", "few"])
def test_zero_inputs_are_skipped_to_no_effect(pair: Case, folder: Path, share: str) -> None:
    """A model of whose hidden channels nearly all are zero, and one of which nearly none are."""
    kernels = pair.model.engine.model.instruction_set
    shape = _shape_of(pair.version, pair.dtype, kernels)
    path = folder / f"{pair.version}-{shape}-{share}.pth"
    if not path.exists():
        tensors = random_model(pair.version, _SHAPES[shape], seed=3)
        for name in tensors:
            if name.endswith("ln2.bias"):
                tensors[name] += 2
            elif name.endswith("ffn.key.weight"):
                tensors[name] += np.float32((-4 if share == "most" else 4) / _SHAPES[shape].width)
        save_pth(tensors, path)
    tokens, expected, zeros = _expected(path, pair.version, pair.dtype)
    assert zeros > 0.9 if share == "most" else zeros < 0.1
    model = _loaded(path, pair.dtype, kernels, 2)
    logits, state = model.prefill(tokens)
    assert distance(logits, expected[-1]) < TOLERANCE.get(pair.dtype, 1e-5)
    rows, stepwise = _stepwise(model, tokens)
    assert rows[-1] == logits.tobytes()
    assert _same(state, stepwise)


@cache
def _expected(path: Path, version: str, dtype: str) -> tuple[list[int], np.ndarray, float]:
    """Tokens, the oracle's logits after each on the weights that the engine holds, and the share of
    hidden channels that are zero.
    """
    weights, types = held_weights(path, dtype)
    assert dtype in types
    tokens = random_tokens(weights["emb.weight"].shape[0], 20)
    oracle = Float64Model(version, weights)
    rows, zeros = [], []
    for token in tokens:
        rows.append(oracle.step(token))
        zeros += [np.mean(memory["hidden"] == 0) for memory in oracle.memory]
    return tokens, np.stack(rows), float(np.mean(zeros))
