"""States on a card: each is one array of float32, which nobody changes.

A step reads the state before and writes the one after somewhere else, so that the blocks of a
kernel need not wait for each other. Copying a state therefore costs nothing, and going back to an
earlier one neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwkv_cli.engine.state import State

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s


class Layout:
    """Where each array of a state lies in the one on the card.

    Args:
        shapes: Name to shape, layers first, in the order of the version's table.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.starts: dict[str, int] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            self.starts[name] = self.size
            self.size += prod(shape)

    def at(self, name: str, layer: int) -> int:
        """Give where a layer's part of an array begins."""
        return self.starts[name] + layer * prod(self.shapes[name][1:])


class Slot:
    """A state on the card: the `DeviceArrays` of the CUDA engine.

    Attributes:
        layout: Where its arrays lie.
        data: (layout.size,) float32; never written again.
    """

    def __init__(self, layout: Layout, data: torch.Tensor) -> None:
        self.layout, self.data = layout, data

    def to_host(self) -> dict[str, Float32s]:
        """Copy every array to the host."""
        flat: Float32s = self.data.cpu().numpy().copy()
        return {
            name: flat[start : start + prod(shape)].reshape(shape)
            for (name, shape), start in zip(
                self.layout.shapes.items(), self.layout.starts.values(), strict=True
            )
        }

    def clone(self) -> Slot:
        """Give the same state once more."""
        return Slot(self.layout, self.data)


def packed(layout: Layout, arrays: Mapping[str, Float32s]) -> torch.Tensor:
    """Put the arrays of a state one after the other, (layout.size,) float32 on the host."""
    parts = [np.ascontiguousarray(arrays[name], np.float32).reshape(-1) for name in layout.shapes]
    return torch.from_numpy(np.concatenate(parts))


def on_card(state: State, layout: Layout, place: torch.device) -> Slot:
    """Give a state on a card, bringing it there first."""
    if not isinstance(state.device, Slot) or state.device.data.device != place:
        flat = packed(layout, state.arrays)
        state.move_to(Slot(layout, flat.to(place)))
    assert isinstance(state.device, Slot)
    return state.device
