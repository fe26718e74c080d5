"""Decodes the block types of ggml: runs of 32 or 256 weights that share scales.

The layouts are those of ggml/src/ggml-common.h, the arithmetic is that of dequantize_row_* in
ggml-quants.c, every step in float32, so that the values are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import RawTensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

_AT_ONCE = 1 << 16  # weights; their float32 fit a core's second cache


@dataclass(frozen=True, slots=True)
class BlockType:
    """A way to store weights in few bits.

    Attributes:
        weights: In a block.
        nbytes: Of a block.
        decode: Takes (blocks, nbytes) bytes, writes (blocks, weights) float32.
    """

    weights: int
    nbytes: int
    decode: Callable[[Any, Any], None]


def in_blocks(source: Source, name: str, coding: str, shape: tuple[int, ...], at: int) -> RawTensor:
    """A tensor that is stored in blocks, which run along its last dimension.

    Args:
        source: The file.
        name: Of the tensor.
        coding: A key of `BLOCK_TYPES`.
        shape: Its shape.
        at: Where the bytes of the first block are.

    Raises:
        RefusedError: They do not lie inside the file, or its rows are no whole number of blocks.
    """
    kind = BLOCK_TYPES[coding]
    if shape[-1] % kind.weights:
        raise source.refused(
            f"is corrupt: a row of {name} has {shape[-1]} weights, no multiple of {kind.weights}"
        )
    nbytes = prod(shape) // kind.weights * kind.nbytes
    data = source.take(at, nbytes, f"tensor {name}")
    width = nbytes // shape[0]

    def some(start: int, count: int) -> memoryview:
        return decoded(coding, data[start * width : (start + count) * width])

    return RawTensor(name, "F32", shape, data, lambda: decoded(coding, data), coding, some)


def decoded(coding: str, data: memoryview) -> memoryview:
    """The float32 weights of blocks, as bytes."""
    import numpy as np

    kind = BLOCK_TYPES[coding]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, kind.nbytes)
    out = np.empty(len(blocks) * kind.weights, np.float32)
    weights = out.reshape(-1, kind.weights)
    step = _AT_ONCE // kind.weights
    # A damaged scale may be infinite, and its products no numbers; nobody needs a warning of that.
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            kind.decode(blocks[start : start + step], weights[start : start + step])
    return out.view(np.uint8).data


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block, as a column."""
    import numpy as np

    return blocks[:, at : at + 2].copy().view("<f2").astype(np.float32)


def _nibbles(packed: Bytes, out: Any) -> None:
    """Writes the low halves of (blocks, runs, n) bytes, then the high ones, run by run."""
    packed = packed.copy()  # in a row numpy takes them many at a time
    runs = out.reshape(*packed.shape[:2], 2, packed.shape[2])
    runs[:, :, 0] = packed & 15
    runs[:, :, 1] = packed >> 4


def _q4_0(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, None, 2:], out)
    out -= 8
    out *= _half(blocks, 0)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, None, 4:], out)
    out *= _half(blocks, 0)
    out += _half(blocks, 2)


def _fives(blocks: Bytes, at: int, out: Floats) -> None:
    """Joins the fifth bits, 32 of them from byte `at`, with the four in the 16 bytes after them."""
    import numpy as np

    # Bits are put together as bytes: numpy adds those to floats four times slower.
    whole = np.empty(out.shape, np.uint8)
    _nibbles(blocks[:, None, at + 4 :], whole)
    whole |= np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little") << 4
    out[...] = whole


def _q5_0(blocks: Bytes, out: Floats) -> None:
    _fives(blocks, 2, out)
    out -= 16
    out *= _half(blocks, 0)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    _fives(blocks, 4, out)
    out *= _half(blocks, 0)
    out += _half(blocks, 2)


def _q8_0(blocks: Bytes, out: Floats) -> None:
    import numpy as np

    out[...] = blocks[:, 2:].view(np.int8)
    out *= _half(blocks, 0)


def _scales_of_8(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scale and minimum of each 32 weights of a Q4_K or Q5_K block: (blocks, 8, 1) each.

    Two halves and twelve bytes: 6 bits each of eight scales and eight minima, the upper two bits
    of the last four beside the lower six of the first four.
    """
    import numpy as np

    first, second, rest = (blocks[:, at : at + 4] for at in (4, 8, 12))
    scales = np.concatenate([first & 63, (rest & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (rest >> 4) | (second >> 6 << 4)], axis=1)
    return (_half(blocks, 0) * scales)[..., None], (_half(blocks, 2) * minima)[..., None]


def _q4_k(blocks: Bytes, out: Floats) -> None:
    scales, minima = _scales_of_8(blocks)
    _nibbles(blocks[:, 16:].reshape(-1, 4, 32), out)
    runs = out.reshape(-1, 8, 32)
    runs *= scales
    runs -= minima


def _q5_k(blocks: Bytes, out: Floats) -> None:
    import numpy as np

    scales, minima = _scales_of_8(blocks)
    whole = np.empty((len(blocks), 8, 32), np.uint8)
    _nibbles(blocks[:, 48:].reshape(-1, 4, 32), whole)
    fifth = blocks[:, 16:48].copy()
    for run in range(8):
        whole[:, run] |= (fifth >> run & 1) << 4
    runs = out.reshape(whole.shape)
    runs[...] = whole
    runs *= scales
    runs -= minima


def _q6_k(blocks: Bytes, out: Floats) -> None:
    """128 bytes of lower halves, 64 of upper pairs of bits, 16 signed scales, the overall scale."""
    import numpy as np

    lower = blocks[:, :128].reshape(-1, 2, 64)
    whole = np.empty((len(blocks), 2, 4, 32), np.uint8)
    _nibbles(lower, whole)
    upper = blocks[:, 128:192].reshape(-1, 2, 32).copy()
    for pair in range(4):
        whole[:, :, pair] |= (upper >> 2 * pair & 3) << 4
    out[...] = (whole - np.uint8(32)).view(np.int8).reshape(out.shape)
    scales = _half(blocks, 208) * blocks[:, 192:208].view(np.int8)
    runs = out.reshape(-1, 16, 16)
    runs *= scales[..., None]


BLOCK_TYPES = {
    "Q4_0": BlockType(32, 18, _q4_0),
    "Q4_1": BlockType(32, 20, _q4_1),
    "Q5_0": BlockType(32, 22, _q5_0),
    "Q5_1": BlockType(32, 24, _q5_1),
    "Q8_0": BlockType(32, 34, _q8_0),
    "Q4_K": BlockType(256, 144, _q4_k),
    "Q5_K": BlockType(256, 176, _q5_k),
    "Q6_K": BlockType(256, 210, _q6_k),
}
