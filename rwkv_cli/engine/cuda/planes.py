"""Many tokens at once: memory for their numbers, and the vendor's products of them.

A row is a token; those of a sequence lie one after the other, and behind the last sequence come
rows that are nobody's. A plane is a matrix of rows in the precision that tensor cores multiply.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwkv_cli.engine.cuda.program import Arena, Program, constant
from rwkv_cli.engine.cuda.slots import Layout
from rwkv_cli.engine.cuda.weights import DTYPES, TYPES, Matrix, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

WARPS = 8  # of a block of kRowThreads

_MANY = 64  # rows from where kernels that read prompts do better one after the other
_ROOMS = (64, 256, 1024)  # rows that programs share memory for


class Planes:
    """A program of some tokens of some sequences, and what its parts are multiplied with.

    Args:
        arena: What programs share that run one after the other.
        weights: The model.
        layout: Of its states.
        sequences: S, at most.
        rows: R, at most: tokens of all sequences.

    Attributes:
        program: What has been built.
        feed: Bytes that a pass begins with: (S,) addresses of the states before and as many of
            those after, (S + 1,) where the rows of each sequence begin, (R,) the sequence of each
            row, and (R,) tokens.
        starts: The part of it that tells where sequences begin.
        owner: The part that tells whose each row is.
        ids: The tokens.
    """

    def __init__(
        self, arena: Arena, weights: Weights, layout: Layout, sequences: int, rows: int
    ) -> None:
        self.device, self.weights, self.layout = arena.device, weights, layout
        self.sequences, self.rows = sequences, rows
        overlaps = overlaps_well(sequences, rows)
        self.program = Program(arena.device, arena, overlaps=overlaps)
        self.dims = weights.dims
        begins = [16 * sequences, 4 * (sequences + 1), 4 * rows, 4 * rows]
        self.feed = self.program.buffer("feed", (sum(begins),), torch.uint8)
        _, self.starts, self.owner, self.ids = torch.split(self.feed, begins)
        self.type = TYPES[next(key for key, value in DTYPES.items() if value == weights.plane)]
        self.threads: int = constant("kRowThreads")

    def placed(self, counts: Sequence[int]) -> list[NDArray[np.int32]]:
        """Tell where the rows of sequences begin that have so many each, and whose each row is."""
        starts = np.zeros(self.sequences + 1, np.int32)
        ends = np.cumsum(counts)
        starts[1 : len(counts) + 1] = ends
        starts[len(counts) + 1 :] = ends[-1]
        owner = np.full(self.rows, -1, np.int32)
        owner[: ends[-1]] = np.repeat(np.arange(len(counts)), counts)
        return [starts, owner]

    def buffer(self, name: str, width: int) -> torch.Tensor:
        """Give float32 memory for `width` numbers of each row."""
        return self.shared(name, (self.rows, width))

    def plane(self, name: str, width: int) -> torch.Tensor:
        """Give memory for the inputs of a product."""
        return self.shared(f"plane_{name}", (self.rows, width), self.weights.plane)

    def shared(
        self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Give memory of a shape, rows first, that other programs use at other times."""
        room = next((room for room in _ROOMS if room >= shape[0]), shape[0])
        return self.program.shared(name, shape, dtype, room=room)

    def per_sequence(
        self, name: str, width: int, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Give memory for `width` numbers of each sequence, shared with programs of as many."""
        shape = self.sequences, width
        return self.program.shared(name, shape, dtype, room=self.sequences)

    def states(self, name: str, layer: int) -> ctypes.Structure:
        """Tell kernels where an array of the states is."""
        first = 8 * self.sequences
        return self.program.struct(
            "States",
            before=self.feed[:first],
            after=self.feed[first : 2 * first],
            offset=self.layout.at(name, layer),
        )

    def multiply(self, plane: torch.Tensor, matrix: Matrix, name: str) -> torch.Tensor:
        """Multiply a plane (R, cols) by a matrix: (R, rows) float32 in the buffer of that name."""
        return self.multiplied(plane, matrix, self.buffer(name, matrix.rows))

    def multiplied(self, plane: torch.Tensor, matrix: Matrix, out: torch.Tensor) -> torch.Tensor:
        """Multiply a plane by a matrix into memory that is there, which is given back."""
        data = self._unpacked(matrix)
        self.program.product(plane, data if matrix.by_input else data.t(), out)
        return out

    def _unpacked(self, matrix: Matrix) -> torch.Tensor:
        """Give the numbers of a matrix as it lies; of a packed one, until the next is unpacked."""
        if not matrix.packed:
            return matrix.data
        rows, cols, panels = matrix.rows, matrix.cols, matrix.by_input
        shape = (cols, rows) if panels else (rows, cols)
        if shape not in self.weights.scratch:
            empty = torch.empty(shape, dtype=self.weights.plane, device=self.device.place)
            self.weights.scratch[shape] = empty
        scratch = self.weights.scratch[shape]
        if panels:
            name, grid = "unpack_panels", (-(-cols // WARPS), -(-rows // constant("kPanel")), 1)
        else:
            name, grid = "unpack_rows", (-(-cols // 64), min(-(-rows // 16), 65535), 1)
        self.program.kernel(
            name,
            "UnpackArguments",
            grid,
            self.threads,
            0,
            matrix=matrix.data,
            plane=scratch,
            rows=rows,
            cols=cols,
            type=matrix.type,
            plane_type=self.type,
        )
        return scratch

    def dense(self, plane: torch.Tensor, name: str, out: str) -> torch.Tensor:
        """Multiply a plane by the model's matrix of a full name."""
        return self.multiply(plane, self.weights.matrices[name], out)

    def activate(
        self, segments: Sequence[tuple[torch.Tensor, int]], names: Sequence[str]
    ) -> list[torch.Tensor]:
        """Make planes of products, or of columns of one, each under an activation."""
        planes = [
            self.plane(name, part.shape[1]) for (part, _), name in zip(segments, names, strict=True)
        ]
        made = [
            self.program.struct(
                "Segment",
                **{"in": self.program.address(part)},
                plane=plane,
                stride=part.stride(0),
                width=part.shape[1],
                activation=activation,
            )
            for (part, activation), plane in zip(segments, planes, strict=True)
        ]
        self.program.kernel(
            "rows_activate",
            "RowsActivateArguments",
            (-(-self.rows // WARPS), len(made), 1),
            self.threads,
            0,
            segment=made,
            rows=self.rows,
            plane_type=self.type,
        )
        return planes


def overlaps_well(sequences: int, rows: int) -> bool:
    """Tell whether a pass is faster where kernels begin while the ones before end: on an H200 those
    of a few rows were, and those of single tokens; RWKV-7's scan over many tokens took half as long
    again (benchmarks/records/gpu-batches.md).
    """
    return sequences == rows or rows < _MANY
