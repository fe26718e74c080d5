"""From a file to a model that runs: open, detect, choose the tokenizer and the engine, load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rwkv_cli.arch.detect import detect
from rwkv_cli.arch.spec import Arch, Dims
from rwkv_cli.checkpoints.open import open_checkpoint
from rwkv_cli.checkpoints.tensors import Checkpoint
from rwkv_cli.engine.identity import Identity, describe, fingerprint
from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import LimitError, RefusedError
from rwkv_cli.text.registry import for_vocabulary, load_tokenizer
from rwkv_cli.text.templates import template_for
from rwkv_cli.text.tokenizer import ids_without_bytes

DEMO = Path(__file__).parents[1] / "data" / "demo.safetensors"
_FLOATS = {"F32", "F16", "BF16", "F64"}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What the header of a weights file tells.

    Attributes:
        checkpoint: The open file.
        arch: The version of RWKV.
        dims: Its sizes.
        tokenizer: Name of the tokenizer that belongs to it; None when nothing tells.
        template: Name of its chat format.
    """

    checkpoint: Checkpoint
    arch: Arch
    dims: Dims
    tokenizer: str | None
    template: str


def open_model(path: Path) -> ModelFile:
    """Read the header of a weights file and tell what it is; no weights are read.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is damaged, or not a model that runs here.
    """
    checkpoint = open_checkpoint(path)
    if "_strategy" in checkpoint.metadata:
        raise RefusedError(
            f"{path}: was converted by the package rwkv for {checkpoint.metadata['_strategy']!r}",
            hint="use the original file that it was made from",
        )
    try:
        arch, dims = detect({name: t.shape for name, t in checkpoint.tensors.items()})
    except RefusedError as error:
        raise RefusedError(f"{path}: {error.message}") from error
    for tensor in checkpoint.tensors.values():
        if tensor.dtype not in _FLOATS:
            raise RefusedError(f"{path}: tensor {tensor.name} has type {tensor.dtype}")
    notes = checkpoint.metadata
    tokenizer = notes.get("rwkv.tokenizer") or for_vocabulary(dims.vocab)
    template = notes.get("rwkv.template") or template_for(
        tokenizer=tokenizer or "", name=path.name, version=arch.name
    )
    return ModelFile(checkpoint, arch, dims, tokenizer, template)


def load_model(
    path: Path,
    strategy: Strategy,
    *,
    tokenizer: str | None = None,
    progress: Progress | None = None,
) -> Model:
    """Load a model.

    Args:
        path: A weights file of any known format.
        strategy: Where it runs, and in which precision.
        tokenizer: Name or file of a tokenizer; None takes the one that belongs to the vocabulary.
        progress: Called with the bytes of each tensor as it is ready.

    Raises:
        NotFoundError: The file or its tokenizer is missing.
        RefusedError: It is damaged, or not a model that runs here.
        LimitError: The device has too little memory.
    """
    file = open_model(path)
    chosen = tokenizer or file.tokenizer
    if chosen is None:
        raise RefusedError(
            f"{path}: no known tokenizer has a vocabulary of {file.dims.vocab}",
            hint="name one with --tokenizer FILE",
        )
    words = load_tokenizer(chosen, near=path.parent)
    weights = fingerprint(file.checkpoint.tensors)

    from rwkv_cli.engine.torch_engine import TorchEngine
    from rwkv_cli.engine.torch_weights import load_stack, out_of_memory

    try:
        stack = load_stack(
            file.checkpoint, file.arch, file.dims, strategy.dtype, strategy.device, progress
        )
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        raise LimitError(
            f"{path}: not enough memory on {strategy.device} to load it",
            hint="a smaller precision needs less: --dtype bf16",
        ) from error
    engine = TorchEngine(stack, file.arch, file.dims, strategy.device)
    arch = describe(file.arch, file.dims)
    identity = Identity(arch, weights, words.digest, engine.numerics)
    name = "demo" if path == DEMO else path.stem
    silent = np.array(ids_without_bytes(words, file.dims.vocab), dtype=np.intp)
    return Model(name, path, file.arch, file.dims, engine, identity, words, file.template, silent)
