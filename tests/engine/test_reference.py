"""Every version against the reference package, on the same weights in float32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from oracle.models import distance, load, random_tokens, save_pth
from oracle.reference import reference_logits
from oracle.weights import SHAPES, VERSIONS, random_model, tuned_state

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.modelfile import open_model

TOKENS = 64
TOLERANCE = 1e-5
TUNED = ("v5.0", "v5.2", "v6")  # the reference knows no tuned state of v7
KEYS = [(v, s) for v in VERSIONS for s in SHAPES] + [(v, "tuned") for v in TUNED]


@dataclass(frozen=True)
class Answer:
    path: Path
    tokens: list[int]
    expected: np.ndarray  # (TOKENS, V), the logits after each token


@dataclass(frozen=True)
class Case:
    model: Model
    tokens: list[int]
    expected: np.ndarray


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Answer]:
    """All models, for both engines; the reference runs twice, once for RWKV-7 and once for the
    rest.
    """
    folder = tmp_path_factory.mktemp("reference")
    found = {}
    for v7 in (False, True):
        keys = [key for key in KEYS if (key[0] == "v7") == v7]
        jobs = [_job(folder, *key) for key in keys]
        logits = reference_logits(jobs, v7=v7)
        for key, (path, tokens), expected in zip(keys, jobs, logits, strict=True):
            found[key] = Answer(path, tokens, expected)
    return found


def _job(folder: Path, version: str, kind: str) -> tuple[Path, list[int]]:
    shape = SHAPES["flat" if kind == "tuned" else kind]
    tensors = random_model(version, shape)
    if kind == "tuned":
        tensors |= tuned_state(shape)
    path = save_pth(tensors, folder / f"{version}-{kind}.pth")
    return path, random_tokens(shape.vocab, TOKENS)


@pytest.fixture(scope="module", params=KEYS, ids="-".join)
def case(
    request: pytest.FixtureRequest, answers: dict[tuple[str, str], Answer], engine: str
) -> Case:
    answer = answers[request.param]
    return Case(load(answer.path, engine=engine), answer.tokens, answer.expected)


def test_version_is_told_from_names_and_shapes(answers: dict[tuple[str, str], Answer]) -> None:
    told = {key: open_model(answer.path).arch.name for key, answer in answers.items()}
    assert told == {key: key[0] for key in answers}


def test_stepwise_logits_equal_reference(case: Case) -> None:
    state = case.model.zero_state()
    for token, expected in zip(case.tokens, case.expected, strict=True):
        logits, state = case.model.decode(token, state)
        assert distance(logits, expected) < TOLERANCE


def test_prefill_at_once_equals_reference(case: Case) -> None:
    logits, _ = case.model.prefill(case.tokens)
    assert distance(logits, case.expected[-1]) < TOLERANCE


@pytest.mark.parametrize(
    "sizes", [(1, 63), (15, 49), (16, 48), (17, 47), (40, 24), (1, 15, 16, 17, 15), (31, 32, 1)]
)
def test_prefill_in_splits_equals_reference(case: Case, sizes: tuple[int, ...]) -> None:
    state, fed = case.model.zero_state(), 0
    for size in sizes:
        logits, state = case.model.prefill(case.tokens[fed : fed + size], state)
        fed += size
        assert distance(logits, case.expected[fed - 1]) < TOLERANCE
    assert fed == TOKENS
