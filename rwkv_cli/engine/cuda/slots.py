"""States on a card: each is one array of float32, which nobody changes.

A step reads the state before and writes the one after somewhere else, so that the blocks of a
kernel need not wait for each other. Copying a state therefore costs nothing, and going back to an
earlier one neither. Where a state has been that nobody knows any more, the next one goes.
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

_SLAB = 32 << 20  # bytes that are asked for together, at least


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


class Cell:
    """Memory of one state or of its logits, free for another as soon as nobody has this any more.

    Attributes:
        address: Where it begins.
    """

    __slots__ = ("_free", "_row", "_slab", "address")

    def __init__(self, slab: torch.Tensor, row: int, free: list[tuple[torch.Tensor, int]]) -> None:
        self._slab, self._row, self._free = slab, row, free
        self.address: int = slab.data_ptr() + row * slab.stride(0) * slab.element_size()

    @property
    def data(self) -> torch.Tensor:
        """The numbers, (size,) float32."""
        return self._slab[self._row]

    @property
    def place(self) -> torch.device:
        """The card."""
        return self._slab.device

    def __del__(self) -> None:
        self._free.append((self._slab, self._row))


class Slot:
    """A state on the card: the `DeviceArrays` of the CUDA engine.

    Attributes:
        layout: Where its arrays lie.
        cell: Its memory; never written again.
    """

    __slots__ = ("cell", "layout")

    def __init__(self, layout: Layout, cell: Cell) -> None:
        self.layout, self.cell = layout, cell

    def to_host(self) -> dict[str, Float32s]:
        """Copy every array to the host."""
        flat: Float32s = self.cell.data.cpu().numpy().copy()
        return {
            name: flat[start : start + prod(shape)].reshape(shape)
            for (name, shape), start in zip(
                self.layout.shapes.items(), self.layout.starts.values(), strict=True
            )
        }

    def clone(self) -> Slot:
        """Give the same state once more."""
        return Slot(self.layout, self.cell)


class Cells:
    """Memory for arrays of one size; it grows when more are at work than ever before.

    Args:
        size: Floats of each.
        place: The card.
    """

    def __init__(self, size: int, place: torch.device) -> None:
        self.size, self.place = size, place
        self._free: list[tuple[torch.Tensor, int]] = []
        self._sizes: dict[int, int] = {}  # cells of each slab, by its address

    def take(self, count: int) -> list[Cell]:
        """Give memory for some; what is in it has no meaning."""
        missing = count - len(self._free)
        if missing > 0:
            rows = max(missing, _SLAB // (4 * self.size) or 1)
            slab = torch.empty(rows, self.size, dtype=torch.float32, device=self.place)
            self._sizes[slab.data_ptr()] = rows
            # In place: cells that are at work know this list.
            self._free[:0] = [(slab, row) for row in reversed(range(rows))]
        return [self._cell() for _ in range(count)]

    def _cell(self) -> Cell:
        return Cell(*self._free.pop(), self._free)

    @property
    def free_bytes(self) -> int:
        """Bytes of the memory that nothing is in."""
        return len(self._free) * 4 * self.size

    def trim(self) -> None:
        """Give back what nothing is in, as far as it was asked for together."""
        rows = dict.fromkeys(self._sizes, 0)
        for slab, _ in self._free:
            rows[slab.data_ptr()] += 1
        unused = {address for address, free in rows.items() if free == self._sizes[address]}
        self._sizes = {a: size for a, size in self._sizes.items() if a not in unused}
        self._free[:] = [one for one in self._free if one[0].data_ptr() not in unused]


class Slots(Cells):
    """The memory of all states of an engine.

    Args:
        layout: Of the states.
        place: The card.
    """

    def __init__(self, layout: Layout, place: torch.device) -> None:
        super().__init__(layout.size, place)
        self.layout = layout

    def on_card(self, state: State) -> Slot:
        """Give a state on the card, bringing it there first."""
        kept = state.device
        if not isinstance(kept, Slot) or not self._has(kept):
            flat = packed(self.layout, state.arrays)
            (cell,) = self.take(1)
            cell.data.copy_(flat)
            kept = Slot(self.layout, cell)
            state.move_to(kept)
        return kept

    def _has(self, slot: Slot) -> bool:
        return slot.layout is self.layout or slot.cell.place == self.place


def packed(layout: Layout, arrays: Mapping[str, Float32s]) -> torch.Tensor:
    """Put the arrays of a state one after the other, (layout.size,) float32 on the host."""
    parts = [np.ascontiguousarray(arrays[name], np.float32).reshape(-1) for name in layout.shapes]
    return torch.from_numpy(np.concatenate(parts))
