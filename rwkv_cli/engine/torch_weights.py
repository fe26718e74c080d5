"""Buffers of a checkpoint in, torch tensors on their device out; no tensor is ever held twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import SimpleNamespace
from typing import Any

import torch

from rwkv_cli.arch.detect import fit_rank
from rwkv_cli.arch.spec import GLOBAL_PARAMS, Arch, Dims, alternatives, arch_module
from rwkv_cli.arch.stack import Stack
from rwkv_cli.checkpoints.tensors import Checkpoint, RawTensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STORED = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
}

_PART = 1 << 20  # elements that are converted at once where a tensor is derived

Progress = Callable[[int], None]


def load_stack(
    checkpoint: Checkpoint,
    arch: Arch,
    dims: Dims,
    dtype: str | None,
    device: str,
    progress: Progress | None = None,
) -> Stack:
    """Make a runnable stack out of a checkpoint.

    Args:
        checkpoint: Where the tensors are.
        arch: Its version.
        dims: Its sizes.
        dtype: "fp32", "bf16" or "fp16" for the matrices; None keeps the precision of the file.
            Vectors are always float32.
        device: A torch device.
        progress: Called with the bytes of each tensor as it is ready.
    """
    loader = _Loader(checkpoint, dims, DTYPES[dtype] if dtype else None, device, progress)
    ends = {name: loader.tensor(name, axes) for name, axes in GLOBAL_PARAMS.items()}
    module = arch_module(arch.name)
    layers = []
    for layer in range(dims.layers):
        p = SimpleNamespace()
        for key, axes in arch.params.items():
            for name in alternatives(key)[1]:
                full = f"blocks.{layer}.{name}"
                if full in checkpoint.tensors:
                    setattr(p, attribute(name), loader.tensor(full, axes))
        module.prepare(p)
        layers.append(p)
    emb = ends.pop("emb.weight")
    return Stack(emb, _ends(ends), layers, module.time_mix, module.channel_mix)


def attribute(name: str) -> str:
    """Turn a parameter's name into an attribute: att.key.weight is att_key,
    ln1.bias is ln1_bias.
    """
    return name.removesuffix(".weight").replace(".", "_")


def _ends(tensors: Mapping[str, torch.Tensor]) -> SimpleNamespace:
    short = {attribute(name.removeprefix("blocks.0.")): t for name, t in tensors.items()}
    return SimpleNamespace(**short)


class _Loader:
    """Turns raw tensors into torch tensors of one precision on one device."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dims: Dims,
        dtype: torch.dtype | None,
        device: str,
        progress: Progress | None,
    ) -> None:
        self.checkpoint, self.dims, self.dtype = checkpoint, dims, dtype
        self.device, self.progress = device, progress

    def tensor(self, name: str, axes: str) -> torch.Tensor:
        """Load one tensor: matrices in the weights' precision, vectors and per-head tables in
        float32.
        """
        raw = self.checkpoint.tensors[name]
        rank = len(axes.split())
        shape = fit_rank(raw.shape, rank)
        assert shape is not None, name  # detection compared every shape
        is_matrix = rank > 1 and "H" not in axes.split()
        target = (self.dtype or _natural(_STORED[raw.dtype])) if is_matrix else torch.float32
        loaded = self._in_parts(raw, target) if raw.derive_rows else self._whole(raw, target)
        if self.progress:
            self.progress(raw.nbytes)
        return loaded.reshape(shape)

    def _whole(self, raw: RawTensor, target: torch.dtype) -> torch.Tensor:
        """Load a tensor at once; one that lies in the file as it is wanted stays there."""
        mapped = _view(raw.plain())
        where = mapped.data_ptr()
        if where % mapped.element_size():
            mapped = mapped.clone()  # files may place a tensor at any byte, kernels want it aligned
        loaded = mapped.to(device=self.device, dtype=target)
        if loaded.data_ptr() != where:
            self.checkpoint.release(raw)
        return loaded

    def _in_parts(self, raw: RawTensor, target: torch.dtype) -> torch.Tensor:
        """Load a tensor that is derived a few rows at a time: whole it may be half a gigabyte."""
        loaded = torch.empty(raw.shape, device=self.device, dtype=target)
        step = max(_PART // prod(raw.shape[1:]), 1)
        for start in range(0, raw.shape[0], step):
            part = raw.plain_rows(start, min(step, raw.shape[0] - start))
            loaded[start : start + step] = _view(part).reshape(part.shape)
        self.checkpoint.release(raw)
        return loaded


def _natural(stored: torch.dtype) -> torch.dtype:
    """The precision to compute with for one that a file has."""
    return torch.float32 if stored == torch.float64 else stored


def _view(raw: RawTensor) -> torch.Tensor:
    """Wrap a buffer without copying it."""
    buffer: Any = raw.data
    return torch.frombuffer(buffer, dtype=_STORED[raw.dtype])


def is_available(device: str) -> bool:
    """Tell whether torch can put a tensor there."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        return False
    return True


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether torch raised this for want of memory: its CPU allocator has no
    class for that.
    """
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
