"""A card that is none: kernels run on the CPU, and products are torch's in float32."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from oracle import cuda_real
from oracle.cuda_host import host_kernels
from oracle.cuda_real import RealCard
from rwkv_cli.engine.cuda.device import Launch
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.weights import DTYPES, load_weights
from rwkv_cli.engine.identity import Identity, describe
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.native.pool import Pool
from rwkv_cli.text.registry import load_tokenizer


class HostDevice:
    """Runs launches on the host's kernels, in the memory of CPU tensors.

    Args:
        broken: A kernel that does nothing, so that its results are whatever was there.
        shared: Bytes of shared memory that a block may have.
    """

    name = "host"
    kind = "hostx3"
    place = torch.device("cpu")
    processors = 3
    programmatic = False

    def __init__(self, broken: str | None = None, shared: int = 227 << 10) -> None:
        self.broken, self.shared = broken, shared
        self.launched: list[str] = []

    def launch(self, launch: Launch) -> None:
        self.launched.append(launch.name)
        if launch.name != self.broken:
            host_kernels().launch(
                launch.name, launch.grid, launch.threads, launch.shared, launch.arguments
            )

    def product(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        self.launched.append("product")
        torch.mm(a.float(), b.float(), out=out)

    def upload(self, target: torch.Tensor, source: torch.Tensor) -> None:
        target.copy_(source)

    def download(self, source: torch.Tensor) -> Any:
        kept = source.clone()
        return lambda: kept

    def free_bytes(self) -> int:
        return 1 << 30

    def guard(self) -> Any:
        return contextlib.nullcontext()

    def blocks(self, kernel: str, threads: int, shared: int) -> int:
        return 2

    def captured(self, run: Any) -> Any:
        return run


def any_device(broken: str | None = None, shared: int = 227 << 10) -> HostDevice | RealCard:
    """The card that `--cuda` asks for, or else the host."""
    loaded = cuda_real.kernels()
    return RealCard(loaded, broken, shared) if loaded else HostDevice(broken, shared)


def cuda_model(path: Path, dtype: str, *, shared: int = 227 << 10, **off: bool) -> Model:
    """Load a file for the card or the host; bytes stand in for a tokenizer."""
    file = open_model(path)
    device = any_device(shared=shared)
    weights = load_weights(file, dtype, device.place, None if dtype in DTYPES else Pool(1))
    engine = CudaEngine(device, weights, **off)
    tokenizer = load_tokenizer("bytes", near=path.parent)
    arch = describe(file.arch, file.dims)
    identity = Identity(arch, file.fingerprint(), tokenizer.digest, engine.numerics)
    return Model(
        path.stem,
        path,
        file.arch,
        file.dims,
        engine,
        identity,
        tokenizer,
        file.template,
        np.zeros(0, np.intp),
    )
