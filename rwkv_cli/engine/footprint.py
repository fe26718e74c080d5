"""How many bytes the weights of a model take on each engine, told from the header alone; imports
neither numpy nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import prod

from rwkv_cli.arch.spec import GLOBAL_PARAMS, Arch, Dims, alternatives, state_shapes
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.placement import (
    FLOAT_BYTES,
    QUANTIZED,
    Placement,
    natural_floats,
    packed_size,
    placements,
    wanted,
)
from rwkv_cli.engine.segments import Place

GROUP = 32  # weights that share a scale

_RANKS = 8  # the CUDA engine fills low ranks up to a multiple of it
# Parameters that `prepare` of a version makes another of.
_DERIVED = {
    "v4": ("att.time_decay",),
    "v5.0": ("att.time_decay", "att.time_first"),
    "v5.1": ("att.time_decay", "att.time_first"),
    "v5.2": ("att.time_decay", "att.time_first"),
    "v6": ("att.time_first",),
}


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a part of a model takes.

    Attributes:
        resident: On its device.
        streamed: In host memory, brought to the device for every pass.
        read: Of both, what one token reads.
    """

    resident: int = 0
    streamed: int = 0
    read: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        """Both together."""
        return Bytes(
            self.resident + other.resident, self.streamed + other.streamed, self.read + other.read
        )


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the parts of a model take.

    Attributes:
        embedding: The table of tokens, without the norm behind it.
        layers: Each layer; the norm behind the embedding is the first one's.
        head: The last norm and the head.
        largest: The largest tensor of the file, which is held while it is converted.
    """

    embedding: Bytes
    layers: tuple[Bytes, ...]
    head: Bytes
    largest: int


def state_bytes(arch: Arch, dims: Dims) -> int:
    """Count the bytes of one layer's state."""
    return sum(4 * prod(shape[1:]) for shape in state_shapes(arch, dims).values())


def streams(name: str, axes: str) -> bool:
    """Tell whether a tensor of a streamed layer is brought anew for every pass: the large ones."""
    return is_matrix(axes) and name.endswith(".weight")


def is_matrix(axes: str) -> bool:
    """Tell whether a parameter is multiplied with, and so has the precision of the matrices."""
    letters = axes.split()
    return len(letters) > 1 and "H" not in letters


def can_quantize(name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether torch quantizes a matrix: a large one whose rows are whole groups."""
    return name.endswith(".weight") and len(shape) == 2 and shape[-1] % GROUP == 0


def quantized_bytes(shape: tuple[int, ...], bits: int) -> int:
    """Count the bytes of a quantized matrix on torch, its scales among them."""
    return prod(shape) * bits // 8 + prod(shape) // GROUP * 2


def torch_footprint(
    file: ModelFile, places: list[Place], embedding: str | None = None
) -> Footprint:
    """Measure a model on torch.

    Args:
        file: The model.
        places: Of each layer, the head last; "" as the floats keeps the file's precision.
        embedding: Precision of the table of tokens; None keeps the file's.
    """
    layers = []
    for layer in range(file.dims.layers):
        found = Bytes()
        for name, axes in layer_params(file.arch, file.checkpoint.tensors, layer):
            found += _on_torch(file, f"blocks.{layer}.{name}", axes, places[layer])
        layers.append(found)
    for name in ("blocks.0.ln0.weight", "blocks.0.ln0.bias"):
        layers[0] += _on_torch(file, name, GLOBAL_PARAMS[name], places[0])
    head = Bytes()
    for name in ("ln_out.weight", "ln_out.bias", "head.weight"):
        head += _on_torch(file, name, GLOBAL_PARAMS[name], places[-1])
    shape = file.dims.shape(GLOBAL_PARAMS["emb.weight"])
    size = (
        prod(shape)
        * FLOAT_BYTES[embedding or natural_floats(file.checkpoint.tensors["emb.weight"])]
    )
    row = size // shape[0]
    return Footprint(Bytes(size, 0, row), tuple(layers), head, _largest(file))


def layer_params(arch: Arch, names: Collection[str], layer: int) -> Iterator[tuple[str, str]]:
    """List the parameters of a layer that are among the tensors of a model, with their axes."""
    for key, axes in arch.params.items():
        for name in alternatives(key)[1]:
            if f"blocks.{layer}.{name}" in names:
                yield name, axes


def _on_torch(file: ModelFile, name: str, axes: str, place: Place) -> Bytes:
    shape = file.dims.shape(axes)
    if not is_matrix(axes):
        short = name.split(".", 2)[-1]
        copies = 2 if short in _DERIVED.get(file.arch.name, ()) else 1
        return Bytes(4 * prod(shape) * copies, 0, 4 * prod(shape))
    if place.bits and can_quantize(name, shape):
        bits = 8 if name == "head.weight" else place.bits
        size = quantized_bytes(shape, bits)
    else:
        size = (
            prod(shape) * FLOAT_BYTES[place.floats or natural_floats(file.checkpoint.tensors[name])]
        )
    if place.streamed and streams(name, axes):
        return Bytes(0, size, size)
    return Bytes(size, 0, size)


def native_footprint(file: ModelFile, dtype: str | None) -> Footprint:
    """Measure a model on the native engine; dtype as `placement.wanted` takes it."""

    def size(place: Placement) -> int:
        if file.packed:
            return file.packed.tensors[place.name].nbytes
        raw = file.checkpoint.tensors[place.name]
        return packed_size(place, wanted(place, raw.coding or raw.dtype, dtype))

    return _by_placement(file, size)


def cuda_footprint(file: ModelFile, dtype: str) -> Footprint:
    """Measure a model on the CUDA engine."""
    plane = 4 if dtype == "fp32" else 2

    def size(place: Placement) -> int:
        if place.role in ("vector", "state"):
            return 4 * place.rows
        low_rank = place.role == "fine" and place.layout == "panels"
        if dtype in QUANTIZED and place.role != "embedding" and not low_rank:
            return packed_size(place, "int8" if place.role == "fine" else dtype)
        rows, cols = place.rows, place.cols
        if low_rank:
            parts = 5 if "time_maa_w" in place.name else 1
            short = min(rows, cols) // parts
            short += -short % _RANKS
            rows, cols = max(rows, cols), short * parts
        return plane * rows * cols

    return _by_placement(file, size)


def _by_placement(file: ModelFile, size_of: Callable[[Placement], int]) -> Footprint:
    """Add up the tensors of an engine that places them."""
    embedding, head = Bytes(), Bytes()
    layers = [Bytes() for _ in range(file.dims.layers)]
    for place in placements(file.arch, file.dims, file.checkpoint.tensors.keys()):
        size = size_of(place)
        if place.role == "embedding":
            embedding = Bytes(size, 0, size // max(1, place.rows))
        elif place.name.startswith("blocks."):
            layers[int(place.name.split(".")[1])] += Bytes(size, 0, size)
        else:
            head += Bytes(size, 0, size)
    return Footprint(embedding, tuple(layers), head, _largest(file))


def _largest(file: ModelFile) -> int:
    return max(raw.nbytes for raw in file.checkpoint.tensors.values())
