"""Tiny random models, made once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from oracle.cuda_card import Card, fake_card, model_files
from oracle.models import ENGINES, tiny_model
from oracle.weights import VERSIONS

from rwkv_cli.engine.cuda import load as cuda_load
from rwkv_cli.engine.cuda.selftest import Verdict
from rwkv_cli.engine.model import Model


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is packed away from the person at the keyboard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RWKV_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


# Of a module's life: pytest keeps a module's tests together, and what they share is made once.
@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine of a CPU."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny(models_folder: Path) -> Callable[[str, str], Model]:
    """Give the tiny model of a version on an engine."""
    models = {}

    def give(version: str, engine: str) -> Model:
        if (version, engine) not in models:
            models[version, engine] = tiny_model(models_folder, version, engine=engine)
        return models[version, engine]

    return give


@pytest.fixture(scope="module", params=VERSIONS)
def each(request: pytest.FixtureRequest, tiny: Callable[[str, str], Model], engine: str) -> Model:
    """The tiny model of each version on each engine."""
    return tiny(request.param, engine)


@pytest.fixture(scope="module")
def model(tiny: Callable[[str, str], Model], engine: str) -> Model:
    """The tiny model of the newest version on each engine."""
    return tiny("v7", engine)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files for a card, of several precisions."""
    return model_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card that works; a fake."""
    return fake_card(tmp_path, monkeypatch)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The self-tests that were wanted, each passed at once."""
    done: list[str] = []

    def judge(device: object, arch: Any, size: int, dtype: str) -> Verdict:
        done.append(f"{arch.name} {size} {dtype}")
        return Verdict(decodes=True, reads=True)

    monkeypatch.setattr(cuda_load, "judge", judge)
    return done
