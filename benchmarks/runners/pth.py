"""Write a .safetensors checkpoint as the .pth file that the package `rwkv` reads."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def main() -> None:
    """Take source and target from argv."""
    source, target = map(Path, sys.argv[1:])
    temporary = target.with_suffix(".part")
    torch.save(load_file(source), temporary)
    temporary.replace(target)


if __name__ == "__main__":
    main()
