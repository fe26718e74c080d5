"""How much is tried: a little in the suite, more when RWKV_TEST_ROWS says so."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def tries() -> int:
    return int(os.environ.get("RWKV_TEST_ROWS", "2000"))
