"""A CUDA driver and an NVRTC for machines without: small libraries that obey the environment."""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from rwkv_cli.native import build
from rwkv_cli.native.cuda import driver, nvrtc

HERE = Path(__file__).resolve().parent / "fakes"


@dataclass(frozen=True)
class Fakes:
    """A machine with a card, as far as this program can tell.

    Attributes:
        folder: Where its logs and its cache are.
        driver: The driver's file.
        nvrtc: NVRTC's file.
    """

    folder: Path
    driver: Path
    nvrtc: Path
    patch: pytest.MonkeyPatch

    def behave(self, **settings: object) -> None:
        """Changes how the fakes behave: cuda_version, cuda_cards, cuda_sm, cuda_fail, nvrtc_log."""
        for name, value in settings.items():
            self.patch.setenv(f"FAKE_{name.upper()}", str(value))

    def launches(self) -> list[str]:
        """What the driver was asked for."""
        return _lines(self.folder / "launches")

    def compilations(self) -> list[str]:
        """What NVRTC was asked for."""
        return _lines(self.folder / "compilations")


def fake_cuda(folder: Path, patch: pytest.MonkeyPatch) -> Fakes:
    """Gives this process a driver, an NVRTC and a cache of its own."""
    if build.find_compiler() is None:
        pytest.skip("there is no C++ compiler to make the fakes with")
    made = _library("driver"), _library("nvrtc")
    fakes = Fakes(folder, *made, patch)
    patch.setattr(driver, "NAME", str(fakes.driver))
    use_nvrtc(patch, fakes.nvrtc)
    patch.setenv("RWKV_CACHE_DIR", str(folder / "cache"))
    patch.setenv("FAKE_CUDA_LOG", str(folder / "launches"))
    patch.setenv("FAKE_NVRTC_CALLS", str(folder / "compilations"))
    return fakes


def use_nvrtc(patch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Makes these files all that the search for NVRTC comes across."""
    found = [(str(path), ctypes.DEFAULT_MODE) for path in paths]
    patch.setattr(nvrtc, "candidates", lambda: iter(found))


@functools.cache
def _library(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rwkv-fake-cuda-"))
    compiler, path = build.find_compiler(), folder / f"lib{name}.so"
    assert compiler is not None
    command = [*compiler, "-std=c++17", "-shared", "-fPIC", HERE / f"{name}.cpp", "-o", path]
    subprocess.run(command, check=True)
    return path


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
