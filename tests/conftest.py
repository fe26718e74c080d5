"""Shared fixtures: where the real files lie and how a test finds them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for demo/; at the end, so that the package is the installed one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cuda", action="store_true", help="run the CUDA kernels on this machine's card"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cuda"):
        from oracle import cuda_real  # only then: it imports torch

        try:
            cuda_real.use()
        except cuda_real.NoCardError as error:
            raise pytest.UsageError(f"--cuda: {error}") from error


SHARED_DATA = Path(os.environ.get("RWKV_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of trained tiny models and tokenizers made by others."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real files at {SHARED_DATA}; set RWKV_TEST_DATA to their folder")
    return SHARED_DATA
