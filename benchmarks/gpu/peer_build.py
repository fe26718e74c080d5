"""Compiling the kernels that the package `rwkv` brings for itself; imports no torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from gpu.tools import found

ENVIRONMENT = {"MAX_JOBS": "8", "RWKV_V7_ON": "1", "RWKV_JIT_ON": "1"}


def why_plain() -> str | None:
    """Say why the package's own kernels cannot be compiled here; None when they can."""
    missing = [name for name in ("nvcc", "ninja", "c++") if not (found(name) or shutil.which(name))]
    return f"there is no {' and no '.join(missing)}" if missing else None


def environment(folder: Path, *, kernels: bool) -> dict[str, str]:
    """Give the settings of the package."""
    extra = {"RWKV_CUDA_ON": "1" if kernels else "0", "TORCH_EXTENSIONS_DIR": str(folder / "peer")}
    nvcc = found("nvcc")
    if nvcc and "CUDA_HOME" not in os.environ:
        extra["CUDA_HOME"] = str(Path(nvcc).resolve().parents[1])
    return ENVIRONMENT | extra


def begin_compiling(folder: Path) -> subprocess.Popen[bytes] | None:
    """Begin to compile the package's kernels, which takes a minute, while others work."""
    if importlib.util.find_spec("rwkv") is None or why_plain():
        return None
    with (folder / "peer.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", "import rwkv.model"],
            env=os.environ | environment(folder, kernels=True),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
