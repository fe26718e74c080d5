"""Rows for the tests of batches, and what came of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


PROMPTS = [{"id": f"p{i}", "prompt": "abc" * (i % 5 + 1) + str(i)} for i in range(17)]
