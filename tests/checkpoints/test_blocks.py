"""Blocks of ggml decode to the numbers that the package `gguf` gives, to the last bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from rwkv_cli.checkpoints.blocks import BLOCK_TYPES, decoded


@pytest.mark.parametrize("coding", BLOCK_TYPES)
@pytest.mark.parametrize("count", [1, 3, 5000])
def test_random_blocks_decode_as_the_package_decodes_them(coding: str, count: int) -> None:
    kind = BLOCK_TYPES[coding]
    number = gguf.GGMLQuantizationType[coding]
    assert (kind.weights, kind.nbytes) == gguf.GGML_QUANT_SIZES[number]
    blocks = np.random.default_rng(count).integers(0, 256, (count, kind.nbytes), dtype=np.uint8)
    found = np.frombuffer(decoded(coding, memoryview(blocks.tobytes())), "<f4")
    with np.errstate(all="ignore"):  # some of the random scales are infinite
        expected = dequantize(blocks, number).reshape(-1)
    assert np.array_equal(found, expected.astype(np.float32), equal_nan=True)


def by_hand(coding: str, block: bytes) -> list[float]:
    """The numbers of a block of 32, from the words of ggml's definition."""
    halves = np.frombuffer(block[:4], "<f2").astype(np.float32)
    scale, offset = halves[0], halves[1] if coding.endswith("_1") else np.float32(0)
    rest = block[4:] if coding.endswith("_1") else block[2:]
    if coding == "Q8_0":
        return [float(scale * np.float32(q - 256 if q > 127 else q)) for q in rest]
    high = int.from_bytes(rest[:4], "little") if coding.startswith("Q5") else 0
    packed = rest[4:] if coding.startswith("Q5") else rest
    middle = {"Q4_0": 8, "Q5_0": 16}.get(coding, 0)
    low = [q & 15 for q in packed] + [q >> 4 for q in packed]
    whole = [q | (high >> i & 1) << 4 for i, q in enumerate(low)]
    return [float(scale * np.float32(q - middle) + offset) for q in whole]


@pytest.mark.parametrize("coding", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_blocks_of_rwkv_cpp_decode_as_ggml_defines_them(coding: str) -> None:
    rng = np.random.default_rng(4)
    block = bytearray(rng.integers(0, 256, BLOCK_TYPES[coding].nbytes, dtype=np.uint8).tobytes())
    block[:4] = np.array([0.37, -1.25], "<f2").tobytes()
    found = np.frombuffer(decoded(coding, memoryview(block)), "<f4").tolist()
    assert found == by_hand(coding, bytes(block))
