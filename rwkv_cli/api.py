"""The Python door: `rwkv_cli.load`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.strategy import choose_strategy
from rwkv_cli.hub.names import resolve
from rwkv_cli.places import models_folder


def load(
    model: str | os.PathLike[str],
    strategy: str | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    tokenizer: str | None = None,
    lora: Sequence[str] = (),
) -> Model:
    """Load a model to run it from Python.

    Args:
        model: A weights file (.pth, .safetensors, rwkv.cpp .bin), the name of an installed model,
            or "demo".
        strategy: Devices and precisions, such as "cpu fp32", "cuda fp16 *20 -> cpu fp32" or
            "cuda fp16i8 *0+"; without any of the three it is "auto", which goes by free memory.
        device: A torch device; overrules the strategy.
        dtype: "fp32", "bf16", "fp16", "int8" or "int4"; overrules the strategy. By default the
            precision of the file.
        tokenizer: Name or file of a tokenizer; by default the one that belongs to the vocabulary.
        lora: Files of trained changes to merge into it, each as "FILE" or "FILE:ALPHA".

    Raises:
        NotFoundError: There is no such model.
        RefusedError: The file is damaged, or no model that runs here.
        MismatchError: A file to merge was trained on another model.
        UsageError: The strategy is not understood.
    """
    from rwkv_cli.engine.lorafile import lora_named

    path = resolve(os.fspath(model), models_folder())
    return load_model(
        Path(path),
        choose_strategy(strategy, device, dtype),
        tokenizer=tokenizer,
        loras=[lora_named(text) for text in lora],
    )
