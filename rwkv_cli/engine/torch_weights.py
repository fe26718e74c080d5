"""Buffers of a checkpoint in, torch tensors on their device out; no tensor is ever held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from types import SimpleNamespace
from typing import Any

import torch

from rwkv_cli.arch.detect import fit_rank
from rwkv_cli.arch.spec import GLOBAL_PARAMS, Arch, Dims, arch_module
from rwkv_cli.arch.stack import Stack
from rwkv_cli.checkpoints.tensors import Checkpoint, RawTensor
from rwkv_cli.engine.footprint import can_quantize, is_matrix, layer_params
from rwkv_cli.errors import LimitError
from rwkv_cli.ops.quantized import Quantized, put, room_for

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STORED = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
}

_PIECE = 32 << 20  # bytes of a tensor that are converted at once

Progress = Callable[[int], None]
Weight = torch.Tensor | Quantized


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
    loader = Loader(checkpoint, dims, device, DTYPES[dtype] if dtype else None, progress=progress)
    ends = {name: loader.tensor(name, axes) for name, axes in GLOBAL_PARAMS.items()}
    module = arch_module(arch.name)
    layers = []
    for layer in range(dims.layers):
        p = SimpleNamespace()
        for name, axes in layer_params(arch, checkpoint.tensors, layer):
            setattr(p, attribute(name), loader.tensor(f"blocks.{layer}.{name}", axes))
        module.prepare(p)
        layers.append(p)
    emb = ends.pop("emb.weight")
    return Stack(emb, ends_of(ends), layers, module.time_mix, module.channel_mix)


def attribute(name: str) -> str:
    """Turn a parameter's name into an attribute: att.key.weight is att_key,
    ln1.bias is ln1_bias.
    """
    return name.removesuffix(".weight").replace(".", "_")


def ends_of(tensors: Mapping[str, Weight]) -> SimpleNamespace:
    """Gather the parameters outside the layers, as attributes."""
    short = {attribute(name.removeprefix("blocks.0.")): t for name, t in tensors.items()}
    return SimpleNamespace(**short)


class Loader:
    """Turns raw tensors into torch tensors of one precision on one device.

    Args:
        checkpoint: Where they are.
        dims: The sizes of the model.
        device: A torch device.
        dtype: Of the matrices; None keeps the precision of the file.
        bits: 8 or 4 where the large matrices are quantized.
        progress: Called with the bytes of each tensor as it is ready.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dims: Dims,
        device: str,
        dtype: torch.dtype | None,
        bits: int | None = None,
        *,
        progress: Progress | None = None,
    ) -> None:
        self.checkpoint, self.dims, self.dtype = checkpoint, dims, dtype
        self.device, self.bits, self.progress = device, bits, progress

    def tensor(self, name: str, axes: str) -> torch.Tensor:
        """Load one tensor as floats: matrices in the weights' precision, vectors and per-head
        tables in float32. One that is in the wanted form is used where it lies.
        """
        raw, shape = self._found(name, axes)
        target = (self.dtype or _natural(raw)) if is_matrix(axes) else torch.float32
        if torch.device(self.device).type == "cpu" and raw.derive is None:
            mapped = _view(raw)
            if mapped.dtype == target and mapped.data_ptr() % mapped.element_size() == 0:
                self._told(raw)
                return mapped.reshape(shape)
        loaded = torch.empty(shape, dtype=target, device=self.device)
        self.fill(name, axes, loaded)
        return loaded

    def fill(self, name: str, axes: str, target: torch.Tensor) -> None:
        """Load one tensor as floats into memory that is there already."""
        raw, shape = self._found(name, axes)
        for begin, rows in self._pieces(raw, shape):
            target[begin : begin + len(rows)].copy_(rows)
        self._told(raw)

    def weight(self, name: str, axes: str) -> Weight:
        """Load one tensor as the precision wants it: a large matrix may be quantized, the head in 8
        bits at least.
        """
        if not self.bits or not is_matrix(axes) or not can_quantize(name, self.dims.shape(axes)):
            return self.tensor(name, axes)
        raw, shape = self._found(name, axes)
        bits = 8 if name == "head.weight" else self.bits
        floats = self.dtype or _natural(raw)
        made = room_for((shape[0], shape[1]), bits, floats, self.device)
        self.fill_quantized(name, axes, made)
        return made

    def fill_quantized(self, name: str, axes: str, target: Quantized) -> None:
        """Quantize one tensor, on the device, into memory that is there already."""
        raw, shape = self._found(name, axes)
        for begin, rows in self._pieces(raw, shape):
            put(target, begin, rows.to(device=self.device, dtype=target.dtype))
        self._told(raw)

    def _found(self, name: str, axes: str) -> tuple[RawTensor, tuple[int, ...]]:
        raw = self.checkpoint.tensors[name]
        shape = fit_rank(raw.shape, len(axes.split()))
        assert shape is not None, name  # detection compared every shape
        return raw, shape

    def _pieces(self, raw: RawTensor, shape: tuple[int, ...]) -> Iterator[tuple[int, torch.Tensor]]:
        """Give a tensor some rows at a time, with the number of the first; the memory behind them
        is given back at once.
        """
        if raw.derive_rows and raw.shape == shape:
            yield from self._derived_pieces(raw)
            return
        mapped = _view(raw.plain())
        size = mapped.element_size()
        misplaced = mapped.data_ptr() % size  # files may place a tensor at any byte
        rows = mapped.reshape(shape)
        width = max(1, rows[0].numel()) * size
        step = max(1, _PIECE // width)
        for begin in range(0, shape[0], step):
            piece = rows[begin : begin + step]
            yield begin, piece.clone() if misplaced else piece
            if raw.derive is None:
                behind = raw.data[begin * width : (begin + step) * width]
                self.checkpoint.release(replace(raw, data=behind))

    def _derived_pieces(self, raw: RawTensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Derive a tensor some rows at a time: whole it may be half a gigabyte."""
        step = max(1, _PIECE // max(1, 4 * prod(raw.shape[1:])))
        for begin in range(0, raw.shape[0], step):
            part = raw.plain_rows(begin, min(step, raw.shape[0] - begin))
            yield begin, _view(part).reshape(part.shape)
        self.checkpoint.release(raw)

    def _told(self, raw: RawTensor) -> None:
        if self.progress:
            self.progress(raw.nbytes)


def _natural(raw: RawTensor) -> torch.dtype:
    """The precision to compute with for one that a file has; fp16 for fewer bits."""
    stored = torch.float16 if raw.coding else _STORED[raw.dtype]
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


@contextmanager
def within_memory(sequences: int, device: str) -> Iterator[None]:
    """Say plainly that there is no room for what sequences need beside each other.

    Args:
        sequences: How many there are.
        device: Where there is none.

    Raises:
        LimitError: There is none.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise LimitError(
            f"not enough memory on {device} for {sequences} sequences at once",
            hint="fewer of them need less",
        ) from error
