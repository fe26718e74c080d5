"""Tensors of a checkpoint on a card, in the forms that its kernels read.

The host never holds more than the tensor at hand: bytes go from the mapped file to the card piece
by piece, and the pages behind them are given back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from rwkv_cli.arch.spec import Arch, Dims
from rwkv_cli.checkpoints.tensors import RawTensor
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.native_weights import Prepared, prepared
from rwkv_cli.engine.placement import Placement, placements
from rwkv_cli.errors import RefusedError
from rwkv_cli.native.pack import unpack
from rwkv_cli.native.pool import Pool

Progress = Callable[[int], None]

TYPES = {"fp32": 0, "bf16": 1, "fp16": 2, "int8": 3, "int4": 4}  # Type of native/cuda/device.cuh
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STORED = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F64": torch.float64,
}
_RANKS = 8  # low ranks are filled up to a multiple of it: what tensor cores and wide loads need
_PIECE = 64 << 20  # bytes of a tensor that are copied to the card at once


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix on the card.

    Attributes:
        data: (rows, cols), or (cols, rows) where it lies by input; bytes where it is packed.
        type: A value of `TYPES`.
        rows: Outputs.
        cols: Inputs.
        by_input: Whether the weights of an input lie together, as those of the value matrix of
            channel-mixing and of second low-rank factors do; in panels, where it is packed.
    """

    data: torch.Tensor
    type: int
    rows: int
    cols: int
    by_input: bool = False

    @property
    def packed(self) -> bool:
        """Whether it is int8 or int4."""
        return self.type >= TYPES["int8"]


@dataclass(slots=True)
class Weights:
    """A model on a card.

    Attributes:
        arch: Its version.
        dims: Its sizes.
        dtype: Precision of the matrices.
        vectors: (n,) float32 by full name.
        matrices: By full name.
        start: Tuned starting state of layers, on the host.
        scratch: Memory by shape that packed matrices are unpacked to; all programs share it, since
            one runs after the other.
    """

    arch: Arch
    dims: Dims
    dtype: str
    vectors: dict[str, torch.Tensor] = field(default_factory=dict)
    matrices: dict[str, Matrix] = field(default_factory=dict)
    start: dict[int, torch.Tensor] = field(default_factory=dict)
    scratch: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    @property
    def packed(self) -> bool:
        """Whether the matrices are int8 or int4."""
        return self.dtype not in DTYPES

    @property
    def plane(self) -> torch.dtype:
        """Precision of the inputs of vendor products."""
        return DTYPES.get(self.dtype, torch.float16)


def precision(file: ModelFile, dtype: str | None) -> str:
    """Give the precision that the matrices of a file get: a key of `TYPES`.

    What was asked for, or that of the file, except that bf16 becomes fp16: its numbers stay what
    they are, but for those below 6e-5, and the inputs of products are rounded eight times finer.
    """
    if dtype:
        return dtype
    if file.packed:
        return file.packed.dtype
    stored = file.checkpoint.tensors["head.weight"].dtype
    return {"F32": "fp32", "F64": "fp32"}.get(stored, "fp16")


def load_weights(
    file: ModelFile,
    dtype: str | None,
    place: torch.device,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Bring a model to a card.

    Args:
        file: An open weights file.
        dtype: A key of `TYPES`; None is as `precision` says.
        place: The card.
        pool: Threads of the C++ library; needed for packed weights alone.
        progress: Called with the bytes of each tensor of the file as it is there.

    Raises:
        RefusedError: A number is too large for fp16.
        LimitError: There is not enough memory.
    """
    wanted = precision(file, dtype)
    loader = _Loader(file, Weights(file.arch, file.dims, wanted), place)
    if wanted in DTYPES and not file.packed:
        for where in placements(file.arch, file.dims, file.checkpoint.tensors.keys()):
            raw = file.checkpoint.tensors[where.name]
            loader.add_raw(where, raw)
            file.checkpoint.release(raw)
            if progress:
                progress(raw.nbytes)
    else:
        assert pool is not None
        for one in prepared(file, None if file.packed else wanted, pool, progress):
            loader.add_prepared(one)
            file.checkpoint.release(file.checkpoint.tensors[one.place.name])
    return loader.weights


class _Loader:
    """Puts one tensor after another where its kernels look for it."""

    def __init__(self, file: ModelFile, weights: Weights, place: torch.device) -> None:
        self.file, self.weights, self.place = file, weights, place
        self.dtype = weights.plane

    def add_raw(self, where: Placement, raw: RawTensor) -> None:
        """Add a tensor as the checkpoint has it."""
        raw = raw.plain()
        stored = torch.frombuffer(raw.data, dtype=_STORED[raw.dtype])
        if stored.data_ptr() % stored.element_size():
            stored = stored.clone()  # a file may place a tensor at any byte
        if where.role in ("vector", "state"):
            self._add_vector(where, stored.float())
            return
        on_card = self._moved(stored, where.name)
        shape = (where.cols, where.rows) if where.transposed else (where.rows, where.cols)
        self._add_matrix(where, on_card.reshape(shape), transposed=where.transposed)

    def add_prepared(self, one: Prepared) -> None:
        """Add a tensor that the C++ library has packed."""
        where, packed = one.place, one.dtype in ("int8", "int4")
        if where.role in ("vector", "state"):
            self._add_vector(where, torch.frombuffer(one.data, dtype=torch.float32))
        elif packed and (where.role != "fine" or where.layout == "rows"):
            data = self._copied(torch.frombuffer(one.data, dtype=torch.uint8))
            self.weights.matrices[where.name] = Matrix(
                data, TYPES[one.dtype], where.rows, where.cols, where.layout == "panels"
            )
        elif where.layout == "panels":  # a low rank, or a value matrix that was not worth packing
            plain = torch.from_numpy(
                unpack(one.data, one.dtype, "panels", (where.rows, where.cols))
            )
            self._add_matrix(where, self._moved(plain.view(-1), where.name).view(plain.shape))
        else:
            flat = torch.frombuffer(one.data, dtype=DTYPES[one.dtype])
            self._add_matrix(where, self._moved(flat, where.name).view(where.rows, where.cols))

    def _add_vector(self, where: Placement, values: torch.Tensor) -> None:
        if where.role == "state":
            layer = int(where.name.split(".")[1])
            self.weights.start[layer] = values.reshape(where.shape).clone()
        else:
            self.weights.vectors[where.name] = values.to(self.place, copy=True)

    def _add_matrix(
        self, where: Placement, data: torch.Tensor, *, transposed: bool = False
    ) -> None:
        """Add a matrix of floats, (rows, cols) or transposed."""
        name = where.name
        low_rank = where.role == "fine" and where.layout == "panels"
        by_input = name.endswith("ffn.value.weight") or (low_rank and name.endswith("2"))
        if by_input != transposed:
            data = data.t().contiguous()
        if low_rank:
            data = self._filled(name, data)
        rows, cols = data.shape if not by_input else data.shape[::-1]
        kind = next(key for key, value in DTYPES.items() if value == data.dtype)
        self.weights.matrices[name] = Matrix(data, TYPES[kind], rows, cols, by_input)

    def _filled(self, name: str, data: torch.Tensor) -> torch.Tensor:
        """Fill up the ranks of a factor (ranks, width) with zeros; of RWKV-6's five each."""
        parts = 5 if "time_maa_w" in name else 1
        split = data.view(parts, data.shape[0] // parts, data.shape[1])
        missing = -split.shape[1] % _RANKS
        return torch.nn.functional.pad(split, (0, 0, 0, missing)).flatten(0, 1).contiguous()

    def _moved(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        """Bring a matrix to the card in the wanted precision."""
        moved = self._copied(flat, self.dtype)
        narrowed = self.dtype == torch.float16 and flat.dtype != torch.float16
        # Of the ends alone, since anything made of all numbers would need as much memory again.
        if narrowed and not all(bool(end.isfinite()) for end in moved.aminmax()):
            raise RefusedError(
                f"{self.file.checkpoint.path}: tensor {name} has numbers too large for fp16",
                hint="--dtype bf16",
            )
        return moved

    def _copied(self, flat: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Copy a flat tensor to the card piece by piece."""
        out = torch.empty(flat.numel(), dtype=dtype or flat.dtype, device=self.place)
        step = max(1, _PIECE // flat.element_size())
        for start in range(0, flat.numel(), step):
            piece = flat[start : start + step]
            if self.place.type == "cuda":
                piece = piece.pin_memory()
            out[start : start + step].copy_(piece, non_blocking=True)
        return out
