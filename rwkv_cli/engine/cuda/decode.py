"""One token of up to eight sequences, all by kernels of our own: what versions build their layers
from.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rwkv_cli.engine.cuda.device import Device
from rwkv_cli.engine.cuda.program import Program, constant, shared_bytes
from rwkv_cli.engine.cuda.slots import Layout
from rwkv_cli.engine.cuda.weights import TYPES, Matrix, Weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCHES = (1, 2, 4, 8)  # sequences that the kernels are compiled for
HEAD_SIZES = (32, 64, 128)

# Activation of native/cuda/device.cuh.
NONE, TANH, SIGMOID, SQUARED_RELU, SILU = range(5)

_BLOCK_ROWS, _PANEL = 16, 128  # native/src/formats.h
_VALUE_BLOCKS = 2  # of a processor, which the value matrix is spread over
UNITS = {False: 2, True: 8}  # rows of a float matrix dealt out at once: alone, beside packed ones
_LARGEST_CHUNK = 1024  # inputs of a block of the value matrix


@dataclass(frozen=True, slots=True)
class Role:
    """A matrix in a launch that multiplies several.

    Attributes:
        matrix: The matrix.
        out: (M, rows) where its products go.
        mix: (cols,) how far its inputs lie towards those of the token before.
        inputs: (M, cols) inputs of its own, in place of the launch's.
        activation: Of the products.
        add: Whether they are added to what is there.
    """

    matrix: Matrix
    out: torch.Tensor
    mix: torch.Tensor | None = None
    inputs: torch.Tensor | None = None
    activation: int = NONE
    add: bool = False


class Decode:
    """Builds the program of a token.

    Args:
        device: Who runs it.
        weights: The model.
        layout: Of its states.
        sequences: M, one of `BATCHES`.

    Attributes:
        program: What has been built.
        x: (M, C) the residual stream.
        logits: (M, V).
        feed: Bytes that a step begins with: addresses of the states before and after, and tokens.
    """

    def __init__(self, device: Device, weights: Weights, layout: Layout, sequences: int) -> None:
        self.device, self.weights, self.layout, self.sequences = device, weights, layout, sequences
        self.program = Program(device)
        self.dims = weights.dims
        self.feed = self.program.buffer("feed", (20 * sequences,), torch.uint8)
        self.x = self.buffer("x", self.dims.width)
        self.logits = self.buffer("logits", self.dims.vocab)

    @staticmethod
    def placed(_counts: Sequence[int]) -> list[NDArray[np.int32]]:
        """Tell, beside addresses and tokens, nothing: each sequence has one token."""
        return []

    def buffer(self, name: str, width: int) -> torch.Tensor:
        """Give memory for `width` numbers of each sequence."""
        return self.program.buffer(name, (self.sequences, width))

    def states(self, name: str, layer: int) -> ctypes.Structure:
        """Tell kernels where an array of the states is."""
        batch = self.sequences
        return self.program.struct(
            "States",
            before=self.feed[: 8 * batch],
            after=self.feed[8 * batch : 16 * batch],
            offset=self.layout.at(name, layer),
        )

    def normed(self, layer: int, norm: str, shift: str | None, *, commit: bool = True) -> Any:
        """Take the residual stream, normalized, with the token before, as the source of inputs."""
        prefix = f"blocks.{layer}.{norm}" if layer >= 0 else norm
        vectors = self.weights.vectors
        return self.program.struct(
            "Source",
            x=self.x,
            weight=vectors[prefix + ".weight"],
            bias=vectors[prefix + ".bias"],
            cols=self.dims.width,
            commit=int(commit and shift is not None),
            **({"shift": self.states(shift, layer)} if shift else {}),
        )

    def plain(self, x: torch.Tensor) -> Any:
        """Take numbers as they are as the source of inputs."""
        return self.program.struct("Source", x=x, cols=x.shape[1])

    def embed(self) -> None:
        """Begin the residual stream with the tokens' embeddings."""
        add_embedding(self.program, self.weights, self.feed[16 * self.sequences :], self.x)

    def multiply(self, source: Any, roles: Sequence[Role]) -> None:
        """Multiply matrices that read the same inputs, or as many of their own."""
        batch, name = self.sequences, f"dot_{self.sequences}"
        unit = UNITS[any(role.matrix.packed for role in roles)]
        parts = max(dot_parts(source.cols, role.matrix.type) for role in roles)
        starts, units = [], 0
        for role in roles:
            starts.append(units)
            units += -(-role.matrix.rows // (_BLOCK_ROWS if role.matrix.packed else unit))
        shared = self.dot_bytes(batch, source.cols, parts)
        self.program.kernel(
            name,
            "DotArguments",
            (min(units, self._resident(name, constant("kDotThreads"), shared)), 1, 1),
            constant("kDotThreads"),
            shared,
            source=source,
            roles=[self._role(role, first) for role, first in zip(roles, starts, strict=True)],
            count=len(roles),
            units=units,
            unit=unit,
            parts=parts,
        )

    def _resident(self, kernel: str, threads: int, shared: int) -> int:
        """Count the blocks that the card runs at the same time, a few of a processor at most."""
        most = dot_blocks(self.dims.width, packed=self.weights.packed)
        fitting = max(1, self.device.blocks(kernel, threads, shared))
        return self.device.processors * min(most, fitting)

    @staticmethod
    def dot_bytes(sequences: int, cols: int, parts: int) -> int:
        """Give the shared memory in bytes of a product's blocks."""
        ring, warps = "kRing" if sequences <= 2 else "kRingOfMany", constant("kDotWarps")
        wide = sequences * -(-cols // constant("kWide")) * constant("kWide")
        sums = 2 * 4 * parts * _BLOCK_ROWS * sequences
        moments = 8 * sequences
        return shared_bytes(warps * constant(ring), sums, warps * moments, moments, 4 * wide)

    @staticmethod
    def value_bytes(sequences: int, chunk: int = _LARGEST_CHUNK) -> int:
        """Give the shared memory in bytes of the value matrix's blocks."""
        return shared_bytes(4 * sequences * chunk, 4 * 8 * sequences * _PANEL, 4)

    def _role(self, role: Role, first: int) -> ctypes.Structure:
        return self.program.struct(
            "Role",
            weights=role.matrix.data,
            mix=role.mix,
            **{"in": role.inputs},
            out=role.out,
            type=role.matrix.type,
            rows=role.matrix.rows,
            stride=role.out.shape[1],
            activation=role.activation,
            add=int(role.add),
            first=first,
        )

    def value(self, matrix: Matrix, hidden: torch.Tensor, gate: torch.Tensor | None = None) -> None:
        """Add the product of the value matrix to the residual stream, times a gate."""
        program, batch, threads = self.program, self.sequences, constant("kValueThreads")
        panels = -(-matrix.rows // _PANEL)
        # The same for every batch: how inputs are split decides how sums are rounded.
        chunk = _chunk(matrix.cols, -(-_VALUE_BLOCKS * self.device.processors // panels))
        splits = -(-matrix.cols // chunk)
        program.kernel(
            f"value_{batch}",
            "ValueArguments",
            (panels, splits, 1),
            threads,
            self.value_bytes(batch, chunk),
            hidden=hidden,
            weights=matrix.data,
            partial=program.buffer("partial", (splits, batch, panels * _PANEL)),
            finished=program.buffer("finished", (panels,), torch.int32),
            gate=gate,
            x=self.x,
            type=matrix.type,
            inputs=matrix.cols,
            outputs=matrix.rows,
            chunk=chunk,
        )

    def low_rank(self, matrix: Matrix | None, low: torch.Tensor | None) -> ctypes.Structure:
        """Tell kernels of the second factor of a low-rank product and its inputs (M, ...)."""
        if matrix is None or low is None:
            return self.program.struct("LowRank")
        return self.program.struct(
            "LowRank",
            weights=matrix.data,
            low=low,
            type=matrix.type,
            rank=matrix.cols,
            stride=low.shape[1],
        )

    def heads(self, name: str, kind: str, scratch: int, vectors: int, **fields: Any) -> None:
        """Run a block for each head of each sequence.

        Args:
            name: The kernel without its head size.
            kind: Its arguments.
            scratch: Floats of scratch for each channel and warp.
            vectors: Vectors of a head in shared memory, of one head each.
            fields: Its arguments, but for the width.
        """
        heads, size = self.dims.letters["H"], self.dims.letters["N"]
        parts = [4 * scratch * (4 * size // 32) * size] + [4 * size] * vectors
        self.program.kernel(
            f"{name}_{size}",
            kind,
            (heads, self.sequences, 1),
            4 * size,
            shared_bytes(*parts),
            width=heads * size,
            **fields,
        )

    def mix6(
        self,
        layer: int,
        up: Matrix,
        low: torch.Tensor,
        mixed: torch.Tensor,
        maa: list[torch.Tensor],
    ) -> None:
        """Mix RWKV-6's inputs (5, M, C); `low` has (M, 5 * rank) inputs of the five factors."""
        source = self.normed(layer, "ln1", "att_shift", commit=False)
        factor = self.low_rank(up, low)
        factor.rank = up.cols // len(maa)
        channels = constant("kMixChannels")
        self.program.kernel(
            "mix6",
            "Mix6Arguments",
            (-(-self.dims.width // channels), len(maa), self.sequences),
            constant("kEndThreads"),
            shared_bytes(4 * 8 * channels, 4 * channels, 8 * 8),
            source=source,
            maa=maa,
            up=factor,
            out=mixed,
            sequences=self.sequences,
        )

    def gated_channel_mix(self, layer: int, mixes: Mapping[str, torch.Tensor]) -> None:
        """Channel-mixing of RWKV-4 to 6 (arXiv:2404.05892, eq. 14 to 18 of RWKV-4's paper)."""
        matrices = self.weights.matrices
        block = f"blocks.{layer}.ffn."
        value = matrices[block + "value.weight"]
        hidden, gate = self.buffer("hidden", value.cols), self.buffer("gate_x", value.rows)
        roles = [
            Role(matrices[block + "key.weight"], hidden, mixes["k"], activation=SQUARED_RELU),
            Role(matrices[block + "receptance.weight"], gate, mixes["r"], activation=SIGMOID),
        ]
        self.multiply(self.normed(layer, "ln2", "ffn_shift"), roles)
        self.value(value, hidden, gate)

    def head(self) -> None:
        """Score the next token."""
        role = Role(self.weights.matrices["head.weight"], self.logits)
        self.multiply(self.normed(-1, "ln_out", None), [role])


def dot_blocks(width: int, *, packed: bool) -> int:
    """Give how many blocks of a processor were fastest at the products of a model of so many
    channels, on an H200 (benchmarks/records/gpu-second.md).
    """
    return 3 if width >= 1024 and not packed else 2


def dot_parts(cols: int, kind: int) -> int:
    """Give how many sums make an output of a matrix of a type: of slabs of a row, or of warps."""
    slabs = -(-cols * (4 if kind == TYPES["fp32"] else 2) // constant("kSlab"))
    return max(int(constant("kDotWarps")), slabs)


def _chunk(inputs: int, splits: int) -> int:
    """Give the inputs of a block, for about so many blocks: a multiple of 16, of 256 where it is
    larger: a block looks through two of those at once.
    """
    wanted = max(64, -(-inputs // splits))
    step = 16 if wanted <= 256 else 256
    return min(_LARGEST_CHUNK, -(-wanted // step) * step)


def add_embedding(
    program: Program, weights: Weights, tokens: torch.Tensor, x: torch.Tensor
) -> None:
    """Add the kernel that begins a residual stream.

    Args:
        program: The program.
        weights: The model.
        tokens: Bytes of (R,) int32 ids.
        x: (R, C) where their normalized embeddings go.
    """
    emb, threads = weights.matrices["emb.weight"], constant("kEndThreads")
    program.kernel(
        "embed",
        "EmbedArguments",
        (len(x), 1, 1),
        threads,
        shared_bytes(8 * threads // 32),
        tokens=tokens,
        weights=emb.data,
        norm_weight=weights.vectors["blocks.0.ln0.weight"],
        norm_bias=weights.vectors["blocks.0.ln0.bias"],
        x=x,
        type=emb.type,
        width=x.shape[1],
    )
