"""The arithmetic of LoRA, PiSSA and DiSHA on some rows of a matrix, in float32.

- LoRA (Hu et al. 2021, arXiv:2106.09685): W + B A alpha / r.
- PiSSA (Meng et al. 2024, arXiv:2404.02948): W - B' A' + B A, where B' and A' are what the training
  began with. It has no alpha.
- DiSHA (Kang 2024, arXiv:2409.15371) as RWKV-PEFT merges it. Two axes, (r, outputs): every input i
  of output o gains D[i mod r, o]. Three axes, (inputs / r, r, r): with W cut into blocks of r by r,
  each block gains W_block D[b] + D[b], b counting blocks along the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rwkv_cli.checkpoints.precision import widened
from rwkv_cli.checkpoints.tensors import RawTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]


class Step(Protocol):
    """A change of a matrix that can be made some rows at a time."""

    @property
    def unit(self) -> int:
        """Rows come in multiples of it."""

    def begin(self) -> Change:
        """Read what the change needs into memory."""


class Change(Protocol):
    """A step whose numbers are in memory."""

    def __call__(self, rows: Float32s, first: int, /) -> None:
        """Change rows (n, inputs) in place, of which `first` is the number of the first."""


@dataclass(frozen=True, slots=True)
class Product:
    """Adds B A times a scale.

    Attributes:
        down: A, (r, inputs).
        up: B, (outputs, r).
        scale: What it counts.
    """

    down: RawTensor
    up: RawTensor
    scale: float
    unit: int = 1

    def begin(self) -> Change:
        """Read both factors."""
        down = numbers(self.down) * np.float32(self.scale)
        up = numbers(self.up)

        def change(rows: Float32s, first: int) -> None:
            rows += up[first : first + len(rows)] @ down

        return change


@dataclass(frozen=True, slots=True)
class Columns:
    """Adds D[i mod r, o] to input i of output o.

    Attributes:
        shared: D, (r, outputs).
    """

    shared: RawTensor
    unit: int = 1

    def begin(self) -> Change:
        """Read D."""
        shared = numbers(self.shared).T

        def change(rows: Float32s, first: int) -> None:
            some = shared[first : first + len(rows)]
            for start in range(0, rows.shape[1], some.shape[1]):
                part = rows[:, start : start + some.shape[1]]
                part += some[:, : part.shape[1]]

        return change


@dataclass(frozen=True, slots=True)
class Blocks:
    """Adds W_block D[b] + D[b] to each block of r by r.

    Attributes:
        shared: D, (inputs / r, r, r).
    """

    shared: RawTensor

    @property
    def unit(self) -> int:
        """A block's rows."""
        return self.shared.shape[-1]

    def begin(self) -> Change:
        """Read D."""
        shared, size = numbers(self.shared), self.unit

        def change(rows: Float32s, _: int) -> None:
            for block in range(len(shared)):
                part = rows[:, block * size : (block + 1) * size]
                high = part.reshape(-1, size, size)
                part += (high @ shared[block] + shared[block]).reshape(part.shape)

        return change


def steps_of(parts: Mapping[str, RawTensor], alpha: float | None) -> list[Step]:
    """Give the steps that the parts of a matrix stand for, shapes having been checked."""
    block = parts.get("disha") or parts.get("bone")
    if block:
        return [Columns(block) if len(block.shape) == 2 else Blocks(block)]
    down, up = parts["lora_A"], parts["lora_B"]
    if "init_lora_A" not in parts:
        rank = down.shape[0]
        return [Product(down, up, (rank if alpha is None else alpha) / rank)]
    begun = Product(parts["init_lora_A"], parts["init_lora_B"], -1.0)
    return [begun, Product(down, up, 1.0)]


def numbers(tensor: RawTensor) -> Float32s:
    """Read a tensor as float32."""
    return widened(tensor.plain().data, tensor.dtype).reshape(tensor.shape)
