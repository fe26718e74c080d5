"""Tiny random models, made once a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oracle.models import ENGINES, tiny_model
from oracle.weights import VERSIONS

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
