"""Where NVRTC may lie: loaded already, among Python's packages, or in the system."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

WINDOWS = sys.platform == "win32"
_MAJORS = range(19, 11, -1)  # versions that a system's loader is asked for by name
PATTERN = "nvrtc64_*.dll" if WINDOWS else "libnvrtc.so.*"
# Where wheels put it, below a folder of sys.path: those of CUDA 12 and 13, and torch's own.
_WHEELS = ("nvidia/*/bin", "nvidia/*/bin/x86_64", "torch/lib") if WINDOWS else ("nvidia/*/lib",)
_TOOLKITS = (
    (("C:/Program Files/NVIDIA GPU Computing Toolkit/CUDA", "v*/bin"),)
    if WINDOWS
    else (("/usr/local", "cuda*/lib64"), ("/opt", "cuda*/lib64"))
)


def candidates() -> Iterator[tuple[str, int]]:
    """List what the system's loader could be asked for, with the mode to do so."""
    names = [f"nvrtc64_{n}0_0.dll" if WINDOWS else f"libnvrtc.so.{n}" for n in _MAJORS]
    if hasattr(os, "RTLD_NOLOAD"):
        yield from ((name, os.RTLD_NOLOAD) for name in names)
    yield from ((str(path), ctypes.DEFAULT_MODE) for path in _in_packages())
    yield from ((name, ctypes.DEFAULT_MODE) for name in names)
    yield from ((str(path), ctypes.DEFAULT_MODE) for path in _in_toolkits())


def _in_packages() -> list[Path]:
    folders = [folder for folder in map(Path, sys.path) if folder.is_absolute()]
    wheels = [p for folder in folders for where in _WHEELS for p in folder.glob(where)]
    own = Path(sys.prefix) / ("Library/bin" if WINDOWS else "lib")  # Conda's
    return _newest_first(p for folder in (*wheels, own) for p in folder.glob(PATTERN))


def _in_toolkits() -> list[Path]:
    return _newest_first(
        path for root, below in _TOOLKITS for path in Path(root).glob(f"{below}/{PATTERN}")
    )


def _newest_first(paths: Iterator[Path]) -> list[Path]:
    """Sort by the version in the name; of the names of one file the shortest, `libnvrtc.so.13`."""
    found = dict.fromkeys(path for path in paths if "alt" not in path.name)
    return sorted(found, key=lambda path: (-_major(path), len(path.name)))


def _major(path: Path) -> int:
    digits = re.search(r"nvrtc(?:64_|\.so\.)(\d\d)", path.name)
    return int(digits[1]) if digits else 0
