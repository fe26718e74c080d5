"""The CUDA kernels' host computes with integers and halves as the instructions do."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.cuda_host import HostKernels, compiler, host_kernels
from oracle.cuda_shim import SOURCE, arguments

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no g++")

Words = NDArray[np.uint32]


@pytest.fixture(scope="module")
def kernels() -> HostKernels:
    return host_kernels(SOURCE)


def numbers(kernels: HostKernels, choice: int, triples: Words) -> list[int]:
    found = np.empty(len(triples), np.uint32)
    kernels.launch("shim_numbers", (1, 1, 1), 32, 0, arguments(triples, found, len(found), choice))
    return [int(x) for x in found]


@pytest.fixture(scope="module")
def triples() -> Words:
    drawn = np.random.default_rng(3).integers(0, 1 << 32, (500, 3), dtype=np.uint32)
    edges = [(0, 0, 0), (0xFFFFFFFF,) * 3, (0x80808080, 0x7F7F7F7F, 0xFEDCBA98), (1, 2, 0x7654)]
    return np.concatenate([drawn, np.array(edges, np.uint32)])


def permuted(x: int, y: int, selector: int) -> int:
    source = struct.pack("<II", x, y)
    picked = bytearray()
    for i in range(4):
        nibble = selector >> (4 * i) & 15
        byte = source[nibble & 7]
        picked.append((255 if byte > 127 else 0) if nibble & 8 else byte)
    return int.from_bytes(picked, "little")


def dotted(x: int, y: int, start: int, form: str) -> int:
    a, b = struct.unpack("<4b", struct.pack("<I", x)), struct.unpack(form, struct.pack("<I", y))
    return (start + sum(p * q for p, q in zip(a, b, strict=True))) & 0xFFFFFFFF


def test_integers_are_those_of_the_instructions(kernels: HostKernels, triples: Words) -> None:
    rows = [tuple(map(int, row)) for row in triples]
    double = 0x100000001
    laws = {
        0: [permuted(x, y, z) for x, y, z in rows],
        1: [dotted(x, y, z, "<4b") for x, y, z in rows],
        2: [dotted(x, y, z, "<4B") for x, y, z in rows],
        3: [(x * double * y * double) >> 96 for x, y, _ in rows],
        4: [32 - x.bit_length() for x, _, _ in rows],
        5: [(x & -x).bit_length() for x, _, _ in rows],
        6: [x.bit_count() for x, _, _ in rows],
    }
    for choice, expected in laws.items():
        assert numbers(kernels, choice, triples) == expected, choice


def test_halves_are_numpys(kernels: HostKernels, triples: Words) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    words = np.zeros((1 << 16, 3), np.uint32)
    words[:, 0] = halves
    singles = np.array(numbers(kernels, 8, words), np.uint32).view(np.float32)
    np.testing.assert_array_equal(singles, halves.view(np.float16).astype(np.float32))
    scaled = (
        np.random.default_rng(4).standard_normal(4096) * 10.0 ** np.arange(-8, 8).repeat(256)
    ).astype(np.float32)
    words = np.zeros((4096, 3), np.uint32)
    words[:, 0] = scaled.view(np.uint32)
    back = np.array(numbers(kernels, 7, words), np.uint16).view(np.float16)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(back, scaled.astype(np.float16))
