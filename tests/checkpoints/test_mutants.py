"""Thousands of damaged files: each is refused by name or read within its bounds, in no time."""

from __future__ import annotations

import io
import json
import os
import pickletools
import random
import re
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.tensors import ITEM_BYTES
from rwkv_cli.errors import RefusedError
from tests.checkpoints.files import ggmf_bytes, pth_bytes
from tests.checkpoints.gguf_files import base_pairs, gguf_file
from tests.checkpoints.mutate import mutants
from tests.checkpoints.test_rwkvcpp import converted, model
from tests.checkpoints.tripwire import no_side_effects

# Number of a type in rwkv.cpp's files, bytes of its blocks of 32; the same of types of GGUF.
BIN_BLOCKS = {2: 18, 3: 20, 7: 22, 8: 24, 9: 34}
K_BLOCKS = (("w1", 12, 144), ("w2", 13, 176), ("a1", 14, 210), ("a2", 6, 176), ("v1", 7, 192))
SMALL_GGUF = [
    ("token_embd.weight", (32, 4), 0, 512),
    ("blk.0.channel_mix_key.weight", (32, 64), 3, 1280),
]

SHARD, INDEX = "model-00001-of-00001.safetensors", "model.safetensors.index.json"

Family = Callable[[random.Random, int], Iterator[bytes]]

SLOWEST = 2.0
# How many times the usual number of files; a night's run takes 20.
FACTOR = int(os.environ.get("RWKV_TEST_MUTANTS", "1"))
ALLOWANCE = 64 << 20
# Where the numbers are in the records of a ZIP archive, after their signature.
ZIP_FIELDS = {
    b"PK\x01\x02": (0, 8, 10, 16, 20, 24, 28, 30, 32, 34, 42, 46),
    b"PK\x03\x04": (0, 6, 8, 14, 18, 22, 26, 28, 30),
    b"PK\x06\x06": (0, 4, 16, 20, 24, 32, 40, 48),
    b"PK\x06\x07": (0, 4, 8, 16),
    b"PK\x05\x06": (0, 4, 6, 8, 10, 12, 16, 20),
}


@dataclass
class Tally:
    """How the files of one run ended."""

    refused: int = 0
    read: int = 0


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    whole = torch.randn(6, 4, generator=generator)
    return {
        "emb.weight": whole,
        "blocks.0.att.w1": torch.ones(4, 2).half(),
        "blocks.0.att.key.weight": torch.ones(4, 4).bfloat16().T,
        "blocks.0.att.r_k": whole[1:3],
        "ln_out.weight": torch.nn.Parameter(torch.ones(4)).detach(),
    }


def pth_seed() -> bytes:
    out = io.BytesIO()
    torch.save(weights(), out)
    return out.getvalue()


def safetensors_seed() -> bytes:
    return save({name: tensor.clone().contiguous() for name, tensor in weights().items()})


def zip_marks(content: bytes) -> list[int]:
    return [
        match.start() + field
        for signature, fields in ZIP_FIELDS.items()
        for match in re.finditer(re.escape(signature), content)
        for field in fields
    ]


def archives(rng: random.Random, count: int) -> Iterator[bytes]:
    seed = pth_seed()
    return mutants(seed, rng, count, zip_marks(seed))


def pickles(rng: random.Random, count: int) -> Iterator[bytes]:
    """Damage inside data.pkl, with an archive around it that is sound."""
    content = pth_seed()
    start = content.index(b"\x80\x02}")
    program = content[start : content.index(b".PK", start) + 1]
    storages = {"0": bytes(96), "1": bytes(16), "2": bytes(32), "3": bytes(16)}
    marks = [at + step for _, _, at in pickletools.genops(program) for step in (0, 1) if at]
    for damaged in mutants(program, rng, count, marks):
        yield pth_bytes(damaged, storages)


def safetensors_files(rng: random.Random, count: int) -> Iterator[bytes]:
    seed = safetensors_seed()
    return mutants(seed, rng, count, [0, 4, 8, *_header_marks(seed)])


def safetensors_headers(rng: random.Random, count: int) -> Iterator[bytes]:
    """Damage inside the header, with the right length before it."""
    seed = safetensors_seed()
    end = 8 + int.from_bytes(seed[:8], "little")
    marks = [mark - 8 for mark in _header_marks(seed)]
    numbers = (
        "0",
        "1",
        "-1",
        "1e3",
        "2147483648",
        "4294967295",
        str(2**63),
        str(2**64),
        "9" * 5000,
    )
    for index, damaged in enumerate(mutants(seed[8:end], rng, count, marks)):
        if index % 3 == 0:
            found = rng.choice(list(re.finditer(rb"\d+", seed[8:end])))
            number = rng.choice(numbers).encode()
            damaged = seed[8 : 8 + found.start()] + number + seed[8 + found.end() : end]
        yield struct.pack("<Q", len(damaged)) + damaged + seed[end:]


def _header_marks(seed: bytes) -> list[int]:
    end = 8 + int.from_bytes(seed[:8], "little")
    json.loads(seed[8:end])
    return [
        match.start()
        for match in re.finditer(rb'[{}\[\],:"]|\d+', seed[:end])
        if match.start() >= 8
    ]


def ggmf_files(rng: random.Random, count: int) -> Iterator[bytes]:
    for index, version in enumerate(("v4", "v5.2", "v6", "v7")):
        seed = converted(model(version), version, half=index % 2 == 0)
        yield from mutants(seed, rng, count // 4, ggmf_marks(seed))


def quantized_ggmf_files(rng: random.Random, count: int) -> Iterator[bytes]:
    """Files of blocks, of which every row is one or two."""
    for number, nbytes in BIN_BLOCKS.items():
        rows = [
            ("emb.weight", 0, (3, 32), bytes(384)),
            ("blocks.0.att.k_k", 0, (1, 1, 32), bytes(128)),
            ("blocks.0.att.x_rwkvag", 0, (6, 1, 32), bytes(768)),
            ("blocks.0.att.key.weight", number, (4, 64), bytes(range(nbytes)) * 8),
            ("blocks.0.att.w1", number, (2, 32), bytes(range(nbytes)) * 2),
        ]
        seed = ggmf_bytes(rows, (0x67676D66, 101, 3, 32, 1, number))
        yield from mutants(seed, rng, count // len(BIN_BLOCKS), ggmf_marks(seed))


def gguf_files(rng: random.Random, count: int) -> Iterator[bytes]:
    rank = ("blk.0.time_mix_g1.weight", (32, 256), 0, 4 * 32 * 256)
    others = [
        (f"blk.0.time_mix_{n}.weight", (256, 2), kind, 2 * size) for n, kind, size in K_BLOCKS
    ]
    for seed in (gguf_file(), gguf_file(base_pairs(), [*SMALL_GGUF, rank, *others])):
        yield from mutants(bytes(seed.out), rng, count // 2, seed.marks)


def ggmf_marks(content: bytes) -> list[int]:
    marks, at = list(range(0, 24, 4)), 24
    while at < len(content):
        dims, key_length, kind = struct.unpack_from("<3i", content, at)
        shape = struct.unpack_from(f"<{dims}i", content, at + 12)
        name_at = at + 12 + 4 * dims
        marks += [*range(at, name_at + 1, 4), name_at + key_length]
        at = name_at + key_length
        at += prod(shape) // 32 * BIN_BLOCKS[kind] if kind > 1 else prod(shape) * (4, 2)[kind]
    return marks


def survive(path: Path, files: Iterator[bytes], inside: str = "") -> Tally:
    """Opens every file, or the folder that it is put into, and reads all of it; fails on anything
    but data or a refusal.
    """
    tally = Tally()
    for content in files:
        (path / inside).write_bytes(content)
        tracemalloc.reset_peak()
        started, (before, _) = time.perf_counter(), tracemalloc.get_traced_memory()
        try:
            with no_side_effects(), open_checkpoint(path) as checkpoint:
                for tensor in checkpoint.tensors.values():
                    plain = tensor.plain()
                    assert plain.data.nbytes == prod(tensor.shape) * ITEM_BYTES[tensor.dtype]
                    assert len(bytes(plain.data)) == plain.nbytes
            tally.read += 1
        except RefusedError as error:
            tally.refused += str(path) in error.message
        _, peak = tracemalloc.get_traced_memory()
        assert time.perf_counter() - started < SLOWEST
        assert peak - before < len(content) + ALLOWANCE
    return tally


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Path]:
    """A path; every module that a reader loads lazily is loaded."""
    path = tmp_path / "mutant"
    from rwkv_cli.checkpoints import folder  # noqa: F401

    seeds = (pth_seed(), save({"a": torch.ones(1)}), converted(model("v4"), "v4"), gguf_file().out)
    for content in seeds:
        path.write_bytes(content)
        for tensor in open_checkpoint(path).tensors.values():
            tensor.plain()
    tracemalloc.start()
    yield path
    tracemalloc.stop()


# Damage to weights themselves cannot be noticed: none of these formats has a checksum of them.
@pytest.mark.parametrize(
    ("family", "count", "least_refused", "least_read"),
    [
        (archives, 400, 200, 20),
        (pickles, 400, 200, 20),
        (safetensors_files, 350, 200, 10),
        (safetensors_headers, 350, 200, 10),
        (ggmf_files, 350, 200, 20),
        (quantized_ggmf_files, 350, 200, 10),
        (gguf_files, 350, 150, 20),
    ],
    ids=["pth", "pickle", "safetensors", "safetensors header", "rwkv.cpp", "blocks", "GGUF"],
)
def test_damaged_files_are_refused_or_read_within_bounds(
    warm: Path, family: Family, count: int, least_refused: int, least_read: int
) -> None:
    rng = random.Random(20_251_121)
    tally = survive(warm, family(rng, FACTOR * count))
    assert tally.refused + tally.read >= FACTOR * count - len(BIN_BLOCKS)
    assert tally.refused >= least_refused, tally
    assert tally.read >= least_read, tally


@pytest.mark.parametrize("inside", ["config.json", INDEX, SHARD])
def test_folders_with_a_damaged_file_are_refused_or_read_within_bounds(
    warm: Path, inside: str
) -> None:
    folder = warm.parent / "folder"
    folder.mkdir()
    shard, config = safetensors_seed(), json.dumps({"norm_eps": 1e-5, "model_type": "rwkv7"})
    names = dict.fromkeys(weights(), SHARD)
    files = {SHARD: shard, INDEX: json.dumps({"weight_map": names}).encode()}
    files["config.json"] = config.encode()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    seed = files[inside]
    marks = [0, 4, 8, *_header_marks(seed)] if inside == SHARD else [*range(0, len(seed), 3)]
    rng, count = random.Random(6), FACTOR * 120
    tally = survive(folder, mutants(seed, rng, count, marks), inside)
    assert tally.refused + tally.read == count
    assert tally.refused >= 20, tally


def test_mutants_are_the_same_for_the_same_seed() -> None:
    rngs = [random.Random(1) for _ in range(2)]
    first, second = (list(mutants(b"x" * 99, rng, 50, [3, 9])) for rng in rngs)
    assert first == second
    assert len({*first}) > 30
