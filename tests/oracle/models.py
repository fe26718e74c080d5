"""Random models as files, and loaded through the program's own door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from oracle.weights import Shape, Tensors, random_model
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.native_weights import prepared
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.native.library import is_available
from rwkv_cli.native.pack import unpack
from rwkv_cli.native.pool import Pool

needs_native = pytest.mark.skipif(not is_available(), reason="there is no native library")

# Both engines of a CPU, as parameters: what one promises the other must keep.
ENGINES = ["torch", pytest.param("native", marks=needs_native)]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Bytes as tokens: small enough to run thousands of steps, large enough to have every part.
TINY = Shape(layers=2, heads=2, size=16, ffn=64, vocab=256, rank=8)


def save_pth(tensors: Tensors, path: Path, dtype: str = "fp32") -> Path:
    """Write tensors as BlinkDL does."""
    torch.save({n: torch.from_numpy(a).to(DTYPES[dtype]) for n, a in tensors.items()}, path)
    return path


def load(
    path: Path,
    dtype: str | None = None,
    *,
    engine: str | None = "torch",
    threads: int | None = None,
) -> Model:
    """Load a file for the CPU; these vocabularies belong to no tokenizer, so bytes stand in."""
    return load_model(path, Strategy("cpu", dtype, engine, threads), tokenizer="bytes")


def tiny_model(
    folder: Path,
    version: str = "v7",
    shape: Shape = TINY,
    seed: int = 0,
    engine: str | None = "torch",
) -> Model:
    """Make and load a random model."""
    path = folder / f"tiny-{version}-{seed}.pth"
    if not path.exists():
        save_pth(random_model(version, shape, seed), path)
    return load(path, engine=engine)


def distance(out: np.ndarray, reference: np.ndarray) -> float:
    """Relative distance of logits: norm(out - reference) / norm(reference)."""
    reference = reference.astype(np.float64)
    return float(np.linalg.norm(out - reference) / np.linalg.norm(reference))


def random_tokens(model_or_vocab: Model | int, count: int, seed: int = 1) -> list[int]:
    """Draw tokens, never 0."""
    vocab = model_or_vocab if isinstance(model_or_vocab, int) else model_or_vocab.dims.vocab
    return np.random.default_rng(seed).integers(1, vocab, count).tolist()


def as_computed(path: Path, dtype: str) -> Tensors:
    """Give the weights that the engine multiplies with, as float64 under their own names."""
    file, found = open_model(path), {}
    for one in prepared(file, dtype, Pool(1)):
        place = one.place
        if place.role in ("vector", "state"):
            values = np.frombuffer(one.data, np.float32)
        else:
            values = unpack(one.data, one.dtype, place.layout, (place.rows, place.cols))
            values = values.T if place.transposed else values
        found[place.name] = values.astype(np.float64).reshape(place.shape)
    return found
