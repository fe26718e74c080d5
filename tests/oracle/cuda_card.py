"""A torch that believes in a card, or has its reasons not to: what is meant for the card stays on
the CPU.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from oracle.models import distance, load, save_pth
from oracle.weights import Shape, random_model
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.packing import write_packed
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.native.pool import Pool

if TYPE_CHECKING:
    from oracle.cuda_fakes import Fakes

TESTS = Path(__file__).resolve().parents[1]
SMALL = Shape(layers=1, heads=1, size=32, ffn=64, vocab=256, rank=8)
PROMPT = list(b"a card")

NO_CUDA = AssertionError("Torch not compiled with CUDA enabled")
OLD_DRIVER = RuntimeError("The NVIDIA driver on your system is too old (found version 11040).")
NO_DRIVER = RuntimeError("Found no NVIDIA driver on your system.")


def fake_torch(patch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
    """Gives torch one card, number 0, in the memory of the CPU.

    Args:
        patch: Undoes it.
        failure: What comes of using it, instead.
    """

    def moved(place: Any) -> Any:
        if isinstance(place, str | torch.device) and torch.device(place).type == "cuda":
            if failure:
                raise failure
            if torch.device(place).index:
                raise RuntimeError("CUDA error: invalid device ordinal")
            return torch.device("cpu")
        return place

    def patched(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **named: Any) -> Any:
            named |= {"device": moved(named["device"])} if "device" in named else {}
            return real(*map(moved, args), **named)

        patch.setattr(owner, name, call)

    for name in ("empty", "zeros", "as_tensor"):
        patched(torch, name)
    patched(torch.Tensor, "to")
    patch.setattr(torch.cuda, "current_device", lambda: 0)
    patch.setattr(torch.cuda, "device", lambda place: contextlib.nullcontext(moved(place)))


@dataclass
class Card:
    """A card whose kernels run on the host.

    Attributes:
        fakes: Its driver and its NVRTC.
        broken: A kernel that does nothing.
        opened: What was made of the kernels that the driver loaded, each time.
    """

    fakes: Fakes
    broken: str | None = None
    opened: list[Any] = field(default_factory=list)

    @property
    def cache(self) -> list[Path]:
        """The files of the cache of kernels."""
        return sorted((self.fakes.folder / "cache" / "cuda").glob("*"))


def fake_card(folder: Path, patch: pytest.MonkeyPatch) -> Card:
    """Gives this process a card that everything works with."""
    from oracle.cuda_device import HostDevice
    from oracle.cuda_fakes import fake_cuda
    from rwkv_cli.engine.cuda import load

    fake_torch(patch)
    card = Card(fake_cuda(folder, patch))

    def device(place: torch.device, kernels: object) -> HostDevice:
        assert place == torch.device("cuda", 0)
        assert kernels is not None
        card.opened.append(HostDevice(card.broken))
        return card.opened[-1]

    patch.setattr(load, "CudaDevice", device)
    return card


def model_files(folder: Path) -> dict[str, Path]:
    """Writes a small RWKV-7 in each precision that a file may have, and an RWKV-6 as v6."""
    tensors = random_model("v7", SMALL)
    made = {d: save_pth(tensors, folder / f"{d}.pth", d) for d in ("fp32", "bf16", "fp16")}
    made["v6"] = save_pth(random_model("v6", SMALL), folder / "v6.pth")
    for dtype in ("int8", "int4"):
        made[dtype] = folder / f"{dtype}.safetensors"
        write_packed(open_model(made["fp32"]), dtype, made[dtype], Pool(1))
    return made


def on_card(path: Path, dtype: str | None = None, **rest: Any) -> Model:
    """Loads a file as `--device cuda` does; bytes stand in for a tokenizer."""
    return load_model(path, Strategy("cuda", dtype, **rest), tokenizer="bytes")


def falls_back(path: Path, why: str) -> None:
    """Torch runs, and a line says why."""
    model = on_card(path)
    stored = open_model(path).checkpoint.tensors["head.weight"].dtype
    assert model.engine.numerics == f"torch cuda {'bf16' if stored == 'BF16' else 'fp32'}"
    assert model.notice is not None
    assert model.notice.startswith(f"CUDA kernels unavailable, running on torch: {why}")
    assert model.notice.endswith(" (rwkv doctor --torch)")
    assert "\n" not in model.notice
    expected, _ = load(path).prefill(PROMPT)
    assert distance(model.prefill(PROMPT)[0], expected) < 1e-5


def failing(error: Exception) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call


def script(text: str, *arguments: object) -> str:
    """Runs Python away from the checkout: the installed package is what is tested. What it frees
    goes back to the system at once.
    """
    first = f"import sys; sys.path.append({str(TESTS)!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", first + text, *map(str, arguments)],
        check=True, capture_output=True, text=True, timeout=120, cwd=tempfile.gettempdir(),
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
    )  # fmt: skip
    return done.stdout
