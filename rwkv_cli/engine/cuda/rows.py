"""Many tokens at once: the vendor's library multiplies, and kernels of our own do everything
between two products. What versions build their layers from.

A row is a token of one of the sequences: row = sequence * tokens + t.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rwkv_cli.engine.cuda.decode import NONE
from rwkv_cli.engine.cuda.device import Device
from rwkv_cli.engine.cuda.program import Program, constant, shared_bytes
from rwkv_cli.engine.cuda.slots import Layout
from rwkv_cli.engine.cuda.weights import DTYPES, TYPES, Matrix, Weights

_WARPS = 8  # of a block of kRowThreads


@dataclass(frozen=True, slots=True)
class Pending:
    """A product that the residual stream still lacks: x + add * scale * sigmoid(gate)."""

    add: torch.Tensor
    scale: torch.Tensor | None = None
    gate: torch.Tensor | None = None


class Rows:
    """Builds the program of some tokens of some sequences.

    Args:
        device: Who runs it.
        weights: The model.
        layout: Of its states.
        sequences: S.
        tokens: T, of each sequence.

    Attributes:
        program: What has been built.
        logits: (S, V), after the last tokens.
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
        self._threads: int = constant("kRowThreads")
        self._x = self.buffer("x", self.dims.width)
        self._pending: Pending | None = None

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

    def embed(self) -> None:
        """Begin the residual stream with the tokens' embeddings."""
        weights = self.weights
        emb = weights.matrices["emb.weight"]
        self.program.kernel(
            "embed",
            "EmbedArguments",
            (self.rows, 1, 1),
            constant("kEndThreads"),
            shared_bytes(4 * _WARPS, 8),
            tokens=self.feed[16 * self.sequences :],
            weights=emb.data,
            norm_weight=weights.vectors["blocks.0.ln0.weight"],
            norm_bias=weights.vectors["blocks.0.ln0.bias"],
            x=self._x,
            type=emb.type,
            width=self.dims.width,
        )

    def mix(
        self,
        layer: int,
        norm: str,
        shift: str,
        mixes: Sequence[torch.Tensor],
        more: Sequence[torch.Tensor] = (),
        *,
        commit: bool = True,
    ) -> list[torch.Tensor]:
        """Add what is pending, normalize, and move towards the token before.

        Args:
            layer: The layer.
            norm: Name of its layer norm.
            shift: The array of states that has the token before the first.
            mixes: (C,) how far each plane is moved.
            more: (R, C) added to that, for each plane.
            commit: Whether the last token becomes the one before the next.

        Returns:
            A plane (R, C) for each of `mixes`.
        """
        planes = [self.plane(f"mix{index}", self.dims.width) for index in range(len(mixes))]
        prefix, vectors = f"blocks.{layer}.{norm}", self.weights.vectors
        self._mix_rows(
            weight=vectors[prefix + ".weight"],
            bias=vectors[prefix + ".bias"],
            shift=self.states(shift, layer),
            mix=list(mixes),
            more=list(more),
            plane=planes,
            planes=len(planes),
            rows=self.rows,
            tokens=self.tokens,
            commit=int(commit),
            **self._taken(),
        )
        return planes

    def _mix_rows(self, **fields: Any) -> None:
        width = self.dims.width
        self.program.kernel(
            "rows_mix",
            "RowsMixArguments",
            (fields["rows"], 1, 1),
            self._threads,
            shared_bytes(4 * width, 4 * width, 4 * 2 * _WARPS),
            width=width,
            plane_type=self.type,
            **fields,
        )

    def _residual(self) -> ctypes.Structure:
        pending = self._pending
        if pending is None:
            return self.program.struct("Residual", x=self._x)
        return self.program.struct(
            "Residual",
            x=self._x,
            add=pending.add,
            add_scale=pending.scale,
            add_gate=pending.gate,
        )

    def _taken(self) -> dict[str, Any]:
        """Give the residual stream with what is pending, and where the sum goes."""
        residual = self._residual()
        if self._pending is None:
            return {"residual": residual}
        other = self.buffer("x", self.dims.width)
        if other is self._x:  # a row's neighbours read the old one
            other = self.buffer("x_other", self.dims.width)
        self._x, self._pending = other, None
        return {"residual": residual, "x_out": other}

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
            name, grid = "unpack_panels", (-(-cols // _WARPS), -(-rows // constant("kPanel")), 1)
        else:
            name, grid = "unpack_rows", (-(-cols // 64), min(-(-rows // 16), 65535), 1)
        self.program.kernel(
            name,
            "UnpackArguments",
            grid,
            self._threads,
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
            (-(-self.rows // _WARPS), len(made), 1),
            self._threads,
            0,
            segment=made,
            rows=self.rows,
            plane_type=self.type,
        )
        return planes

    def scan(self, name: str, kind: str, operands: int, **fields: Any) -> torch.Tensor:
        """Run a recurrence of matrices over the tokens; gives (R, width) readings.

        Args:
            name: The kernel without its head size.
            kind: Its arguments.
            operands: Vectors of a head that it keeps in shared memory for each token.
            fields: Its arguments, but for sizes and the result.
        """
        heads, size = self.dims.letters["H"], self.dims.letters["N"]
        group, tokens = constant("kScanRows"), constant("kScanTokens")
        y = self.buffer("y", heads * size)
        self.program.kernel(
            f"{name}_{size}",
            kind,
            (heads, size // group, self.sequences),
            constant("kScanThreads"),
            shared_bytes(4 * tokens * (operands * size + group)),
            y=y,
            tokens=self.tokens,
            width=heads * size,
            **fields,
        )
        return y

    def per_head(self, name: str, kind: str, **fields: Any) -> None:
        """Run a warp for each head of each row."""
        self.program.kernel(
            name,
            kind,
            (-(-self.rows // _WARPS), self.dims.letters["H"], 1),
            self._threads,
            0,
            rows=self.rows,
            head_size=self.dims.letters["N"],
            **fields,
        )

    def finish_heads(
        self,
        layer: int,
        y: torch.Tensor,
        gate: torch.Tensor | None,
        activation: int = NONE,
        bonus: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Normalize the heads, gate them, and leave the output matrix's product pending."""
        att, vectors = f"blocks.{layer}.att.", self.weights.vectors
        plane = self.plane("mix0", y.shape[1]) if y.shape[1] == self.dims.width else None
        if plane is None:
            plane = self.plane("heads", y.shape[1])
        self.per_head(
            "rows_post",
            "RowsPostArguments",
            y=y,
            weight=vectors[att + "ln_x.weight"],
            bias=vectors[att + "ln_x.bias"],
            gate=gate,
            plane=plane,
            activation=activation,
            plane_type=self.type,
            **(bonus or {}),
        )
        self.pend(self.dense(plane, att + "output.weight", "add"))

    def pend(
        self,
        add: torch.Tensor,
        scale: torch.Tensor | None = None,
        gate: torch.Tensor | None = None,
    ) -> None:
        """Leave a product to be added to the residual stream by whoever reads it next."""
        assert self._pending is None
        self._pending = Pending(add, scale, gate)

    def channel_mix(self, layer: int, mixes: dict[str, torch.Tensor]) -> None:
        """Channel-mixing, with a receptance where the version has one."""
        ffn = f"blocks.{layer}.ffn."
        planes = self.mix(layer, "ln2", "ffn_shift", list(mixes.values()))
        named = dict(zip(mixes, planes, strict=True))
        hidden = self.dense(named["k"], ffn + "key.weight", "hidden")
        squared = self.plane("hidden", hidden.shape[1])
        scale = self.program.buffer("scale", (self.rows,))
        self.program.kernel(
            "rows_relu2",
            "RowsRelu2Arguments",
            (self.rows, 1, 1),
            self._threads,
            shared_bytes(4 * _WARPS),
            **{"in": hidden},
            plane=squared,
            scale=scale,
            rows=self.rows,
            width=hidden.shape[1],
            plane_type=self.type,
        )
        gate = self.dense(named["r"], ffn + "receptance.weight", "gate_x") if "r" in named else None
        self.pend(self.dense(squared, ffn + "value.weight", "add"), scale, gate)

    def head(self) -> None:
        """Score what follows the last token of each sequence."""
        width, sequences, vectors = self.dims.width, self.sequences, self.weights.vectors
        last = self.program.buffer("last", (sequences, width))
        self.program.kernel(
            "rows_last",
            "RowsLastArguments",
            (sequences, 1, 1),
            self._threads,
            0,
            residual=self._residual(),
            out=last,
            sequences=sequences,
            tokens=self.tokens,
            width=width,
        )
        plane = self.program.buffer("plane_last", (sequences, width), self.weights.plane)
        self._mix_rows(
            residual=self.program.struct("Residual", x=last),
            weight=vectors["ln_out.weight"],
            bias=vectors["ln_out.bias"],
            plane=[plane],
            planes=1,
            rows=sequences,
            tokens=1,
        )
        self.logits = self.dense(plane, "head.weight", "logits")
