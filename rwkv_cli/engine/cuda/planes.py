"""Many tokens at once: memory for their numbers, and the vendor's products of them.

A row is a token of one of the sequences: row = sequence * tokens + t. A plane is a matrix of rows
in the precision that tensor cores multiply.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from rwkv_cli.engine.cuda.device import Device
from rwkv_cli.engine.cuda.program import Program, constant
from rwkv_cli.engine.cuda.slots import Layout
from rwkv_cli.engine.cuda.weights import DTYPES, TYPES, Matrix, Weights

WARPS = 8  # of a block of kRowThreads


class Planes:
    """A program of some tokens of some sequences, and what its parts are multiplied with.

    Args:
        device: Who runs it.
        weights: The model.
        layout: Of its states.
        sequences: S.
        tokens: T, of each sequence.

    Attributes:
        program: What has been built.
        feed: Bytes that a pass begins with: addresses of the states before and after, and tokens.
    """

    def __init__(
        self, device: Device, weights: Weights, layout: Layout, sequences: int, tokens: int
    ) -> None:
        self.device, self.weights, self.layout = device, weights, layout
        self.sequences, self.tokens, self.rows = sequences, tokens, sequences * tokens
        self.program = Program(device)
        self.dims = weights.dims
        self.feed = self.program.buffer("feed", (16 * sequences + 4 * self.rows,), torch.uint8)
        self.type = TYPES[next(key for key, value in DTYPES.items() if value == weights.plane)]
        self.threads: int = constant("kRowThreads")

    def buffer(self, name: str, width: int) -> torch.Tensor:
        """Give float32 memory for `width` numbers of each row."""
        return self.program.buffer(name, (self.rows, width))

    def plane(self, name: str, width: int) -> torch.Tensor:
        """Give memory for the inputs of a product."""
        return self.program.buffer(f"plane_{name}", (self.rows, width), self.weights.plane)

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
        out = self.program.buffer(name, (len(plane), matrix.rows))
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
