"""Many tokens at once: what versions build their layers from. The vendor's library multiplies, and
kernels of our own do everything between two products.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rwkv_cli.engine.cuda.decode import NONE, add_embedding
from rwkv_cli.engine.cuda.planes import WARPS, Planes
from rwkv_cli.engine.cuda.program import Arena, constant, shared_bytes
from rwkv_cli.engine.cuda.slots import Layout
from rwkv_cli.engine.cuda.weights import Weights


@dataclass(frozen=True, slots=True)
class Pending:
    """A product that the residual stream still lacks: x + add * scale * sigmoid(gate)."""

    add: torch.Tensor
    scale: torch.Tensor | None = None
    gate: torch.Tensor | None = None


class Rows(Planes):
    """Builds the program of some tokens of some sequences.

    Arguments as of `Planes`.

    Attributes:
        logits: (S, V), after the last token of each.
    """

    def __init__(
        self, arena: Arena, weights: Weights, layout: Layout, sequences: int, rows: int
    ) -> None:
        super().__init__(arena, weights, layout, sequences, rows)
        self._x = self.buffer("x", self.dims.width)
        self._pending: Pending | None = None

    def embed(self) -> None:
        """Begin the residual stream with the tokens' embeddings."""
        add_embedding(self.program, self.weights, self.ids, self._x)

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
            starts=self.starts,
            owner=self.owner,
            rows=self.rows,
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
            self.threads,
            shared_bytes(4 * width, 4 * width, 4 * 2 * WARPS),
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
            starts=self.starts,
            width=heads * size,
            **fields,
        )
        return y

    def per_head(self, name: str, kind: str, **fields: Any) -> None:
        """Run a warp for each head of each row."""
        self.program.kernel(
            name,
            kind,
            (-(-self.rows // WARPS), self.dims.letters["H"], 1),
            self.threads,
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
        scale = self.shared("scale", (self.rows,))
        self.program.kernel(
            "rows_relu2",
            "RowsRelu2Arguments",
            (self.rows, 1, 1),
            self.threads,
            shared_bytes(4 * WARPS),
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
        last = self.per_sequence("last", width)
        self.program.kernel(
            "rows_last",
            "RowsLastArguments",
            (sequences, 1, 1),
            self.threads,
            0,
            residual=self._residual(),
            out=last,
            sequences=sequences,
            starts=self.starts,
            width=width,
        )
        plane = self.per_sequence("plane_last", width, self.weights.plane)
        self._mix_rows(
            residual=self.program.struct("Residual", x=last),
            weight=vectors["ln_out.weight"],
            bias=vectors["ln_out.bias"],
            plane=[plane],
            planes=1,
            rows=sequences,
        )
        head = self.weights.matrices["head.weight"]
        self.logits = self.multiplied(plane, head, self.per_sequence("logits", head.rows))
