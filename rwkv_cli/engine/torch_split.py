"""From a weights file to a model whose layers lie on several devices, or come to one as they are
needed; tensor by tensor, and no tensor is ever held twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from rwkv_cli.arch.spec import GLOBAL_PARAMS, arch_module
from rwkv_cli.arch.stack import Stack
from rwkv_cli.engine.footprint import (
    GROUP,
    can_quantize,
    layer_params,
    streams,
)
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.segments import Place
from rwkv_cli.engine.torch_engine import TorchEngine
from rwkv_cli.engine.torch_states import spans_of
from rwkv_cli.engine.torch_stream import Lane, Streamed, Waiting, lane_of, waiting
from rwkv_cli.engine.torch_weights import DTYPES, Loader, Progress, attribute, ends_of
from rwkv_cli.ops.quantized import Quantized

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s

_HEAD = ("ln_out.weight", "ln_out.bias", "head.weight")
_FIRST_NORM = ("blocks.0.ln0.weight", "blocks.0.ln0.bias")


def split_engine(
    file: ModelFile,
    places: Sequence[Place],
    progress: Progress | None = None,
    lane: Callable[[str], Lane] = lane_of,
) -> TorchEngine:
    """Load a model.

    Args:
        file: An open weights file.
        places: Of each layer, the head last.
        progress: Called with the bytes of each tensor as it is ready.
        lane: Gives the way to copy to a device.
    """
    builder = _Builder(file, places, progress)
    stack = builder.stack(lane)
    spans = spans_of([place.device for place in places[:-1]])
    name = numerics(places)
    return TorchEngine.split(stack, (file.arch, file.dims), spans, name, builder.start)


def numerics(places: Sequence[Place]) -> str:
    """Name the arithmetic of layers: how each is kept and which kind of device computes it, not
    whether it is streamed or which of several devices has it, which change no bit.
    """
    found: list[tuple[str, int]] = []
    for place in places:
        bits = f" int{place.bits}" if place.bits else ""
        kind = f"{place.device.partition(':')[0]} {place.floats}{bits}"
        count = found.pop()[1] + 1 if found and found[-1][0] == kind else 1
        found.append((kind, count))
    if len(found) == 1:
        return found[0][0]
    return ", ".join(f"{count} x {kind}" for kind, count in found)


class _Builder:
    """Loads one part after the other.

    Attributes:
        start: Tuned starting state of layers, on the host.
    """

    def __init__(self, file: ModelFile, places: Sequence[Place], progress: Progress | None) -> None:
        self.file, self.places, self.progress = file, places, progress
        self.module = arch_module(file.arch.name)
        self.start: dict[int, Float32s] = {}

    def stack(self, lane: Callable[[str], Lane]) -> Stack:
        """Load everything."""
        file, first = self.file, self.places[0]
        # Rows of the embedding are looked up on the host, where nobody misses its memory.
        emb = self._loader(Place("cpu", first.floats)).tensor("emb.weight", "V C")
        norms = self._loader(Place(first.device, first.floats))
        ends = {name: norms.weight(name, GLOBAL_PARAMS[name]) for name in _FIRST_NORM}
        layers = [self._layer(number) for number in range(file.dims.layers)]
        head = self._loader(self.places[-1])
        ends |= {name: head.weight(name, GLOBAL_PARAMS[name]) for name in _HEAD}
        moving = next((p.device for p in self.places if p.streamed), None)
        ready = Streamed(layers, moving, lane) if moving else layers
        return Stack(emb, ends_of(ends), ready, self.module.time_mix, self.module.channel_mix)

    def _loader(self, place: Place) -> Loader:
        file = self.file
        return Loader(
            file.checkpoint, file.dims, place.device, DTYPES[place.floats], place.bits,
            progress=self.progress,
        )  # fmt: skip

    def _layer(self, number: int) -> SimpleNamespace | Waiting:
        """Load a layer; of one that is streamed the large matrices stay in host memory."""
        place, p = self.places[number], SimpleNamespace()
        loader, later = self._loader(place), {}
        for name, axes in layer_params(self.file.arch, self.file.checkpoint.tensors, number):
            full = f"blocks.{number}.{name}"
            if place.streamed and streams(full, axes):
                later[full] = axes
            else:
                setattr(p, attribute(name), loader.weight(full, axes))
        self.module.prepare(p)
        if hasattr(p, "att_time_state"):
            self.start[number] = p.att_time_state.cpu().numpy()
        return self._waiting(number, p, loader, later) if later else p

    def _waiting(
        self, number: int, p: SimpleNamespace, loader: Loader, later: dict[str, str]
    ) -> Waiting:
        """Load the large matrices of a layer into host memory."""
        place, dims = self.places[number], self.file.dims
        floats = DTYPES[place.floats]
        short = {full: attribute(full.split(".", 2)[2]) for full in later}
        shapes = {
            short[full]: _stored(full, dims.shape(axes), place.bits, floats)
            for full, axes in later.items()
        }
        room = waiting(p, shapes, floats, place.device)
        # Quantized by the device that will use them: the same bits as without streaming.
        source = loader if place.bits else self._loader(Place("cpu", place.floats))
        for full, axes in later.items():
            found = source.weight(full, axes)
            tensors = (found.codes, found.scales) if isinstance(found, Quantized) else (found,)
            for part, tensor in zip(room.parts[short[full]][0], tensors, strict=True):
                part.of(room.flat).copy_(tensor)
            del found, tensors
            self.file.checkpoint.release(self.file.checkpoint.tensors[full])
        return room


def _stored(
    name: str, shape: tuple[int, ...], bits: int | None, floats: torch.dtype
) -> list[tuple[tuple[int, ...], torch.dtype]]:
    """Give shapes and types of what a matrix is kept as."""
    if not bits or not can_quantize(name, shape):
        return [(shape, floats)]
    rows, cols = shape
    codes = ((rows, cols), torch.int8) if bits == 8 else ((rows, cols // 2), torch.uint8)
    return [codes, ((rows, cols // GROUP), torch.float16)]
