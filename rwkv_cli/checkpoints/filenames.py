"""What files of weights are called; knows nothing of what is in them."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".pth", ".safetensors", ".st", ".bin", ".gguf")


def model_name(path: Path) -> str:
    """The name of the model at a path: a folder's name may hold a dot, as in RWKV7-1.5B."""
    return path.stem if path.suffix in SUFFIXES else path.name
