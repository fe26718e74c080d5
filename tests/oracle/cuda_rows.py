"""What tests of the CUDA kernels share: launches on arrays, and poisoned results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oracle import cuda_real
from oracle.cuda_host import host_kernels
from oracle.packing import as_float, from_float, unpacked
from rwkv_cli.native import pack
from rwkv_cli.native.cuda.structures import structures
from rwkv_cli.native.pool import Pool

Floats = NDArray[np.float32]
Plane = NDArray[Any]
Address = Callable[[Plane], int]


class Addresses(tuple[Any, ...]):
    """Arrays, or None, of which a kernel is given an array of addresses."""


PLANES = {"fp32": 0, "bf16": 1, "fp16": 2}
BITS = {"fp32": np.uint32, "bf16": np.uint16, "fp16": np.uint16}
# Half a unit in the last place of a plane's type, or what float32 may lose on the way.
ROUNDING = {"fp32": 3e-6, "bf16": 2.0**-8, "fp16": 2.0**-10}

Wide = NDArray[np.float64]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


# By the kernels' numbers: each function, and how much more than its argument it may be off.
ACTIVATIONS: list[tuple[Callable[[Wide], Wide], Callable[[Wide], Any]]] = [
    (lambda x: x, lambda _: 1),
    (np.tanh, lambda _: 1),
    (sigmoid, lambda _: 0.25),
    (lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.abs(x) + 1e-5),
    (lambda x: x * sigmoid(x), lambda _: 1.1),
]

# Sequences, tokens, heads, head size: widths of 192 and 320 are no powers of two.
SHAPES = [(1, 1, 3, 64), (3, 1, 3, 64), (1, 2, 10, 32), (3, 7, 3, 64), (1, 33, 5, 64)]


def launch(
    kernel: str,
    structure: str,
    grid: tuple[int, int, int],
    threads: int,
    shared: int = 0,
    *,
    order: int | None = None,
    **fields: Any,
) -> None:
    """Runs a kernel on arrays, numbers, None, and lists and dictionaries of these: on the host, its
    threads in some order, or on the card that `--cuda` asks for.
    """
    arguments = structures()[structure]()
    card = cuda_real.kernels()
    if card is None:
        in_place = InPlace()
        _fill(arguments, fields, in_place.address)
        host_kernels().launch(kernel, grid, threads, shared, arguments, order)
        return
    memory = cuda_real.Memory()
    _fill(arguments, fields, memory.address)
    card.launch(kernel, grid, threads, shared, arguments, memory.stream)
    memory.fetch()


class InPlace:
    """Arrays as they lie on the host, kept as long as this is."""

    def __init__(self) -> None:
        self.kept: list[Plane] = []

    def address(self, array: Plane) -> int:
        assert array.ctypes.data % 16 == 0 or not array.flags.c_contiguous
        self.kept.append(array)
        return array.ctypes.data


def _fill(structure: Any, fields: dict[str, Any], address: Address) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, Addresses):
            value = np.array([0 if x is None else address(x) for x in value], np.uint64)
        return address(value) if isinstance(value, np.ndarray) else value

    for name, value in fields.items():
        if isinstance(value, dict):
            _fill(getattr(structure, name), value, address)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, dict):
                    _fill(getattr(structure, name)[i], item, address)
                else:
                    getattr(structure, name)[i] = plain(item)
        else:
            setattr(structure, name, plain(value))


def states(before: Sequence[Floats], after: Sequence[Floats], offset: int = 0) -> dict[str, Any]:
    """The structure of states."""
    return {"before": Addresses(before), "after": Addresses(after), "offset": offset}


def starts(sequences: int, tokens: int) -> NDArray[np.int32]:
    """Where the rows of each of some sequences begin, and where the last ones end."""
    return np.arange(sequences + 1, dtype=np.int32) * np.int32(tokens)


def owner(sequences: int, tokens: int) -> NDArray[np.int32]:
    """The sequence of each row."""
    return np.repeat(np.arange(sequences, dtype=np.int32), tokens)


def gaussian(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Floats:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def poisoned(*shape: int) -> Floats:
    return np.full(shape, np.nan, np.float32)


def poisoned_plane(dtype: str, *shape: int) -> Plane:
    """A plane of NaNs."""
    return np.full(shape, np.iinfo(BITS[dtype]).max, BITS[dtype])


def numbers(plane: Plane, dtype: str) -> Floats:
    return as_float(plane, dtype).reshape(plane.shape)


def matrix(
    rng: np.random.Generator, dtype: str, layout: str, rows: int, cols: int
) -> tuple[Plane, Wide]:
    """A random matrix as the kernels of single tokens read it, by rows ("rows") or by inputs
    ("panels"), and the numbers (rows, cols) that it stands for.
    """
    x = gaussian(rng, rows, cols, scale=cols**-0.5)
    if dtype in PLANES:
        data = from_float(np.ascontiguousarray(x if layout == "rows" else x.T), dtype)
        exact = numbers(data, dtype)
        return data, (exact if layout == "rows" else exact.T).astype(np.float64)
    size = pack.packed_bytes(dtype, layout, rows, cols)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64  # as the memory of a card is aligned
    target = memory[start : start + size]
    pack.pack(Pool(1), pack.Matrix(x, "F32", rows, cols), dtype, layout, target)
    return target, unpacked(target, dtype, layout, rows, cols).astype(np.float64)


def in_16_bits(inputs: Any) -> tuple[Wide, Floats]:
    """Inputs as packed matrices meet them, and a step of each: a group of 32 has 32512 to its
    largest number.
    """
    x = np.asarray(inputs, np.float32)
    most = np.abs(x).reshape(len(x), -1, 32).max(2)
    step = np.repeat(np.where(most > 0, most, 1) / np.float32(32512), 32, 1)
    return np.rint(x / step).astype(np.float64) * step, step


def assert_within(actual: Any, expected: Any, bound: Any) -> None:
    """Compares with float64 under a bound of its own for each number."""
    off = np.abs(np.asarray(actual, np.float64) - expected)
    assert not np.isnan(off).any()
    assert np.all(off <= bound), float((off - bound).max())


def assert_close(actual: Any, expected: Any, dtype: str = "fp32", absolute: float = 1e-5) -> None:
    """Compares with float64: what the type rounds off, and a little that float32 loses."""
    off = np.abs(np.asarray(actual, np.float64) - expected)
    bound = ROUNDING[dtype] * np.abs(expected) + absolute
    assert not np.isnan(off).any()
    assert np.all(off <= bound), float((off - bound).max())


def wide(*arrays: Floats) -> list[Wide]:
    return [array.astype(np.float64) for array in arrays]
