"""What is known of where a model came from: a small JSON file beside it, written by a download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rwkv_cli.errors import RwkvError
from rwkv_cli.files import read_regular

_LARGEST = 1 << 20  # bytes


def sidecar_path(model: Path) -> Path:
    """Give the file that tells of a model: for `foo.pth` it is `foo.pth.json`."""
    return model.with_name(f"{model.name}.json")


def read_sidecar(model: Path) -> dict[str, Any]:
    """Read what is known of a model; nothing when there is no such file, or it makes no sense: what
    it says is never needed to use the model.
    """
    try:
        known = json.loads(read_regular(sidecar_path(model), _LARGEST))
    except (RwkvError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
