"""Tokens drawn on the card are those that the host would draw, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle.cuda_device import cuda_model
from oracle.cuda_host import compiler
from oracle.models import save_pth
from oracle.weights import Shape, random_model

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.onehost import choose_on_host
from rwkv_cli.engine.state import State
from rwkv_cli.errors import RefusedError
from rwkv_cli.generation import Generation
from rwkv_cli.sampling import Sampling
from rwkv_cli.traces import Randomness

if compiler() is None:
    pytest.skip("there is no C++ compiler", allow_module_level=True)

SHAPE = Shape(layers=1, heads=1, size=32, ffn=64, vocab=256, rank=8)
SETTINGS = [
    Sampling(temperature=0, presence=0.5, frequency=0.5),
    Sampling(temperature=1.3, top_p=0.9, presence=0.3, frequency=0.2, banned=(65, 66)),
    Sampling(
        temperature=0.8, top_p=1, top_k=9, min_p=0.02, presence=0, frequency=0, order="openai"
    ),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """A model that draws on the card, and the same one that leaves it to the host."""
    path = save_pth(random_model("v7", SHAPE), tmp_path_factory.mktemp("m") / "m.pth")
    card, host = cuda_model(path, "fp32"), cuda_model(path, "fp32")
    host.engine.draws, host.engine.choose = lambda plan: None, choose_on_host
    return card, host


def _generation(
    model: Model, sampling: Sampling, state: State | None = None, **extra
) -> Generation:
    if state is None:
        _, state = model.prefill([72, 101, 108, 108, 111])
    chosen = {"max_tokens": 12, **extra}
    return Generation(model, state, sampling, Randomness(5, 2), **chosen)


@pytest.mark.parametrize("sampling", SETTINGS, ids=["greedy", "rwkv", "openai"])
def test_the_card_draws_what_the_host_draws(
    models: tuple[Model, Model], sampling: Sampling
) -> None:
    card, host = models
    on_card, on_host = (_generation(model, sampling) for model in models)
    tokens = [event.token for event in on_card]
    assert tokens == [event.token for event in on_host]
    assert "sample" in card.engine.device.launched
    assert "sample" not in host.engine.device.launched
    assert list(on_card.state.tokens) == list(on_host.state.tokens)
    assert np.array_equal(on_card.state.logits, on_host.state.logits)
    assert on_card.state.attachments.sampler == on_host.state.attachments.sampler
    assert np.array_equal(
        on_card.state.attachments.penalty_counts, on_host.state.attachments.penalty_counts
    )


def test_a_generation_goes_on_from_the_state_that_it_left(models: tuple[Model, Model]) -> None:
    card, _ = models
    whole = [event.token for event in _generation(card, SETTINGS[1])]
    first = _generation(card, SETTINGS[1], max_tokens=5)
    tokens = [event.token for event in first]
    second = _generation(card, SETTINGS[1], first.state.clone(), max_tokens=7)
    assert tokens + [event.token for event in second] == whole


def test_a_stop_string_leaves_the_state_before_it(models: tuple[Model, Model]) -> None:
    card, host = models
    whole = bytes(event.token for event in _generation(card, SETTINGS[1]))
    stop = whole[4:7]
    ended = [_generation(model, SETTINGS[1], stops=[stop]) for model in models]
    shown = [b"".join(event.data for event in generation) for generation in ended]
    assert shown[0] == shown[1] == whole[: whole.index(stop)]
    assert list(ended[0].state.tokens) == list(ended[1].state.tokens)
    assert np.array_equal(ended[0].state.logits, ended[1].state.logits)
    assert np.array_equal(ended[0].state.arrays["wkv"], ended[1].state.arrays["wkv"])


def test_two_generations_take_turns_and_neither_notices(models: tuple[Model, Model]) -> None:
    card, _ = models
    alone = [[e.token for e in _generation(card, sampling)] for sampling in SETTINGS[:2]]
    turns = [iter(_generation(card, sampling)) for sampling in SETTINGS[:2]]
    together: list[list[int]] = [[], []]
    for _ in range(12):
        for index, turn in enumerate(turns):
            event = next(turn, None)
            if event is not None:
                together[index].append(event.token)
    assert together == alone


def test_logits_that_are_not_finite_are_refused_as_the_host_does(tmp_path: Path) -> None:
    tensors = random_model("v7", SHAPE)
    tensors["emb.weight"][65] = np.nan
    model = cuda_model(save_pth(tensors, tmp_path / "m.pth"), "fp32")
    only_a = tuple(t for t in range(256) if t != 65)
    generation = _generation(model, Sampling(banned=only_a))
    with pytest.raises(RefusedError, match="not finite"):
        list(generation)
