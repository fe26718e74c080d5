"""Many sequences at once on a card: what is read together is what each would be alone, and the card
draws what the host draws.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.cuda_device import cuda_model
from oracle.cuda_host import compiler
from oracle.models import distance, random_tokens, save_pth
from oracle.weights import Shape, random_model

from rwkv_cli.engine.cuda.draws import CardLogits
from rwkv_cli.engine.cuda.slots import Slot
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.onehost import choose_on_host
from rwkv_cli.engine.room import free_bytes, slot_bytes
from rwkv_cli.engine.state import State
from rwkv_cli.errors import LimitError
from rwkv_cli.native.library import is_available
from rwkv_cli.sampling import Choice, Penalties, Sampling

if compiler() is None or not is_available():
    pytest.skip("there is no C++ compiler, or no native library", allow_module_level=True)

SHAPE = Shape(layers=2, heads=2, size=32, ffn=96, vocab=90, rank=5)
NOTHING = np.zeros(0, np.intp)


@pytest.fixture(
    scope="module",
    params=[("v4", "fp32"), ("v5.2", "fp32"), ("v6", "fp32"), ("v7", "fp16"), ("v7", "int8")],
    ids="-".join,
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    version, dtype = request.param
    path = tmp_path_factory.mktemp("m") / "m.pth"
    return cuda_model(save_pth(random_model(version, SHAPE, seed=2), path), dtype)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("m") / "m.pth"
    return cuda_model(save_pth(random_model("v7", SHAPE, seed=2), path), "fp32")


def prompts(model: Model, lengths: list[int]) -> list[list[int]]:
    tokens, found = random_tokens(model, sum(lengths)), []
    for length in lengths:
        found.append(tokens[:length])
        tokens = tokens[length:]
    return found


def read_alone(model: Model, start: State, tokens: list[int]) -> tuple[np.ndarray, State]:
    state = start
    for token in tokens:
        logits, state = model.decode(token, state)
    return logits, state


def test_sequences_of_different_lengths_are_read_in_one_pass_as_if_alone(model: Model) -> None:
    fed = prompts(model, [7, 1, 13, 1, 2, 1, 3, 1, 1, 1])
    first = model.decode(3, model.zero_state())[1]
    states = [(first if row % 3 else model.zero_state()).clone() for row in range(len(fed))]
    alone = [read_alone(model, s, t) for s, t in zip(states, fed, strict=True)]
    wanted = [row != 2 for row in range(len(fed))]
    model.engine.device.launched.clear()
    model.engine.feed(fed, states, wanted)
    assert model.engine.device.launched.count("embed") == 1
    bound = 5e-3 if "fp32" not in model.engine.numerics else 1e-5
    for row, (state, (logits, after)) in enumerate(zip(states, alone, strict=True)):
        assert list(state.tokens) == list(after.tokens)
        assert (state.logits is None) == (row == 2)
        for name, array in after.clone().arrays.items():
            assert distance(state.arrays[name], array) < bound
        if row != 2:
            assert isinstance(state.logits, np.ndarray)
            assert distance(state.logits, logits) < bound


def test_a_sequence_does_not_depend_on_those_beside_it(plain: Model) -> None:
    fed = prompts(plain, [5, 1, 6, 1])
    found = []
    for beside in ([1, 2, 3], [2], [3, 0, 1, 2]):
        tokens = [fed[0], *(fed[other][:2] for other in beside), [1] * (9 - 2 * len(beside))]
        states = [plain.zero_state() for _ in tokens]
        plain.engine.feed(tokens, states, [True] * len(tokens))
        assert states[0].logits is not None
        found.append(states[0].logits)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_single_tokens_of_few_are_what_decoding_gives_bit_for_bit(model: Model) -> None:
    starts = [model.decode(1 + i, model.zero_state())[1] for i in range(5)]
    expected, after = model.decode([9, 8, 7, 6, 5], starts)
    states = [state.clone() for state in starts]
    model.engine.feed([[9], [8], [7], [6], [5]], states, [False, True, True, False, True])
    for row, (state, same) in enumerate(zip(states, after, strict=True)):
        assert (state.logits is None) == (row in (0, 3))
        if row not in (0, 3):
            assert np.array_equal(state.logits, expected[row])
        assert all(np.array_equal(state.arrays[n], a) for n, a in same.clone().arrays.items())


def test_logits_that_nobody_asks_for_stay_on_the_card(plain: Model) -> None:
    states = [plain.zero_state() for _ in range(12)]
    downloads = []
    device = plain.engine.device
    download = device.download
    device.download = lambda source: downloads.append(source.numel()) or download(source)
    try:
        plain.engine.feed([[row] for row in range(12)], states, [True] * 12)
        assert not downloads
        drawn = plain.engine.choose(states, [choice(Sampling(temperature=0.0))] * 12)
    finally:
        device.download = download
    assert downloads == [12]
    assert all(isinstance(state.kept_logits, CardLogits) for state in states)
    assert drawn == [int(np.argmax(state.logits)) for state in states]


def choice(
    sampling: Sampling, u: float = 0.5, counts: dict[int, float] | None = None, never=NOTHING
) -> Choice:
    given = counts or {}
    return Choice(sampling, u, Penalties(given, list(given.values())), never)


def choices(count: int, vocab: int) -> list[Choice]:
    """All kinds of choices: with and without penalties, bans, filters, and of equal logits."""
    rng = np.random.default_rng(3)
    kinds = [
        Sampling(temperature=0.0, presence=0.9, frequency=0.4),
        Sampling(1.3, 0.9, presence=0.0, frequency=0.0),
        Sampling(0.7, 0.95, 20, 0.01, order="openai"),
        Sampling(1.0, 1.0, presence=0.5, frequency=-0.3),
    ]
    made = []
    for row in range(count):
        seen = rng.choice(vocab, 31, replace=False)[: int(rng.integers(0, 30))]
        counts = dict(zip(seen.tolist(), rng.random(len(seen)) * 3, strict=True))
        banned = [NOTHING, np.array([0, 5, 77], np.intp), np.arange(40, dtype=np.intp)][row % 3]
        made.append(choice(kinds[row % 4], float(rng.random()), counts, banned))
    return made


def test_the_card_draws_for_many_what_the_host_draws(plain: Model) -> None:
    states = [plain.zero_state() for _ in range(40)]
    plain.engine.feed([[1 + row] for row in range(40)], states, [True] * 40)
    states[3:6] = [states[2].clone() for _ in range(3)]  # several that have the same logits
    assert states[7].logits is not None  # one that is on the host
    wanted = choices(40, SHAPE.vocab)
    for _ in range(2):  # nothing is left behind for the next draw
        plain.engine.device.launched.clear()
        drawn = plain.engine.choose([state.clone() for state in states], wanted)
        assert plain.engine.device.launched == ["sample_counts", "sample", "sample_counts"]
        assert drawn == choose_on_host([state.clone() for state in states], wanted)
    fewer = [replace(one, penalties=Penalties()) for one in wanted[:5]]
    plain.engine.device.launched.clear()
    drawn = plain.engine.choose(states[:5], fewer)
    assert plain.engine.device.launched == ["sample"]
    assert drawn == choose_on_host(states[:5], fewer)


def test_where_no_token_can_be_drawn_the_others_are(plain: Model) -> None:
    states = [plain.zero_state() for _ in range(3)]
    plain.engine.feed([[1], [2], [3]], states, [True] * 3)
    states[2].logits = np.full(SHAPE.vocab, np.nan, np.float32)
    everything = np.arange(SHAPE.vocab, dtype=np.intp)
    greedy = Sampling(temperature=0.0)
    drawn = plain.engine.choose(
        states, [choice(greedy, never=everything), choice(greedy), choice(greedy)]
    )
    assert drawn == [-1, int(np.argmax(states[1].logits)), -1]


def test_a_vocabulary_that_the_kernel_does_not_take_is_drawn_from_on_the_host(
    plain: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [plain.zero_state()]
    plain.engine.feed([[1]], states, [True])
    monkeypatch.setattr(plain.engine, "batches", ())
    plain.engine.device.launched.clear()
    drawn = plain.engine.choose(states, [choice(Sampling(temperature=0.0))])
    assert drawn == [int(np.argmax(states[0].logits))]
    assert "sample" not in plain.engine.device.launched


def test_memory_of_states_is_used_again_and_never_while_somebody_has_it(plain: Model) -> None:
    states = [plain.zero_state() for _ in range(20)]
    kept = []
    for step in range(30):
        plain.engine.feed([[step + row] for row in range(20)], states, [False] * 20)
        if step == 3:
            kept = [state.clone() for state in states[:4]]
            was = [{n: a.copy() for n, a in s.clone().arrays.items()} for s in kept]
        slabs = {id(state.device.cell._slab) for state in states if isinstance(state.device, Slot)}
        assert len(slabs) <= 2
    for state, before in zip(kept, was, strict=True):
        assert all(np.array_equal(state.arrays[n], a) for n, a in before.items())
    free = plain.engine.slots.free_bytes
    del states, kept
    assert plain.engine.slots.free_bytes > free


def test_a_state_that_is_kept_keeps_nothing_of_those_beside_it(plain: Model) -> None:
    states, kept = [plain.zero_state() for _ in range(12)], []
    for step in range(40):
        plain.engine.feed([[step]] * 12, states, [True] * 12)
        kept.append(states[step % 12].clone())
    room = sum(plain.engine.scores._sizes.values())
    assert room * 4 * SHAPE.vocab <= 64 << 20
    assert room - plain.engine.scores.free_bytes // (4 * SHAPE.vocab) <= 12 + 40 + 1


def test_no_memory_for_a_pass_is_said_so_and_changes_nothing(
    plain: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [plain.zero_state() for _ in range(9)]
    before = plain.zero_state().arrays

    def full(_: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(plain.engine.slots, "take", full)
        with pytest.raises(LimitError, match="for 9 sequences at once"):
            plain.engine.feed([[1]] * 9, states, [True] * 9)
    assert all(state.position == 0 and state.kept_logits is None for state in states)
    assert all(np.array_equal(states[8].arrays[n], a) for n, a in before.items())
    plain.engine.feed([[1]] * 9, states, [True] * 9)
    assert states[8].logits is not None


def test_what_no_state_is_in_can_be_given_back(tmp_path: Path) -> None:
    path = save_pth(random_model("v7", SHAPE), tmp_path / "m.pth")
    engine = cuda_model(path, "fp32").engine
    slots = engine.slots
    slots.take(slots.free_bytes // (4 * slots.layout.size) + 1)
    state = engine.zero_state()
    engine.prefill([1, 2, 3], state)
    before = engine.decode([4], [state.clone()])
    slots.trim()
    assert np.array_equal(engine.decode([4], [state]), before)


def test_room_is_measured_where_sequences_lie(plain: Model) -> None:
    engine, vocab = plain.engine, SHAPE.vocab
    assert slot_bytes(engine, vocab) > 2 * 4 * engine.layout.size + 4 * vocab
    free = free_bytes(engine)
    assert free is not None
    assert free > engine.slots.free_bytes
