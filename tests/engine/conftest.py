"""Tiny random models, made once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from oracle.models import tiny_model
from oracle.weights import VERSIONS

from rwkv_cli.engine.model import Model


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny(models_folder: Path) -> Callable[[str], Model]:
    """Give the tiny model of a version."""
    models = {}

    def give(version: str) -> Model:
        if version not in models:
            models[version] = tiny_model(models_folder, version)
        return models[version]

    return give


@pytest.fixture(scope="session", params=VERSIONS)
def each(request: pytest.FixtureRequest, tiny: Callable[[str], Model]) -> Model:
    """The tiny model of each version."""
    return tiny(request.param)


@pytest.fixture(scope="session")
def model(tiny: Callable[[str], Model]) -> Model:
    """The tiny model of the newest version."""
    return tiny("v7")
