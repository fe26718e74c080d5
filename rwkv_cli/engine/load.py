"""From a weights file to a model that runs: its tokenizer, its engine, its tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rwkv_cli.engine.identity import Identity, describe, fingerprint
from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.modelfile import DEMO, open_model
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import LimitError, RefusedError, UsageError
from rwkv_cli.text.registry import load_tokenizer
from rwkv_cli.text.tokenizer import ids_without_bytes


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
    from rwkv_cli.engine.torch_weights import is_available, load_stack, out_of_memory

    if not is_available(strategy.device):
        raise UsageError(
            f"there is no {strategy.device} here that torch can use", hint="--device cpu"
        )
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
