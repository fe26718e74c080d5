"""From a weights file to a model that runs: its tokenizer, its engine, its tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rwkv_cli.arch.spec import Dims
from rwkv_cli.engine.identity import Identity, describe
from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.modelfile import DEMO, ModelFile, open_model
from rwkv_cli.engine.protocol import Engine
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import LimitError, RefusedError, UsageError
from rwkv_cli.native.library import UnavailableError, unavailable_reason
from rwkv_cli.native.machine import default_threads
from rwkv_cli.text.registry import load_tokenizer
from rwkv_cli.text.tokenizer import ids_without_bytes

_SMALL = 64 << 20  # bytes of a weights file
_HEAD_SIZES = (16, 32, 64, 128)  # that native/src/recurrence.inl is compiled for
_STEP = 32  # widths must be a multiple of it there


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
        MismatchError: It was packed by another version of this program.
        LimitError: The device has too little memory.
        UnavailableError: The strategy needs the C++ library, and there is none.
        UsageError: The strategy cannot be had here.
    """
    file = open_model(path)
    chosen = tokenizer or file.tokenizer
    if chosen is None:
        raise RefusedError(
            f"{path}: no known tokenizer has a vocabulary of {file.dims.vocab}",
            hint="name one with --tokenizer FILE",
        )
    words = load_tokenizer(chosen, near=path.parent)
    weights = file.fingerprint()
    engine: Engine
    why_torch = _why_torch(file, strategy)
    if why_torch is None:
        engine, notice = _native(file, strategy, progress)
    else:
        engine, notice = _torch(file, strategy, progress), why_torch or None
    arch = describe(file.arch, file.dims)
    identity = Identity(arch, weights, words.digest, engine.numerics)
    name = "demo" if path == DEMO else path.stem
    silent = np.array(ids_without_bytes(words, file.dims.vocab), dtype=np.intp)
    return Model(
        name,
        path,
        file.arch,
        file.dims,
        engine,
        identity,
        words,
        file.template,
        silent,
        notice,
    )


def usual_threads(path: Path) -> int:
    """Give the number of threads a model runs on when nobody says another.

    A token of a small model is too little work to share: threads would wait for each other more
    than they gain, and badly so on a busy machine.
    """
    if path.is_file() and path.stat().st_size < _SMALL:
        return 1
    return default_threads()


def _why_torch(file: ModelFile, strategy: Strategy) -> str | None:
    """Say why a model does not run on the native engine: a sentence where someone may have expected
    that, empty where nobody does; None when it does.

    Raises:
        UnavailableError: It must run there.
        UsageError: It must, and cannot.
    """
    if strategy.device != "cpu" or strategy.engine == "torch":
        if file.packed:
            raise UsageError(
                f"{file.checkpoint.path}: is packed for the native engine of a CPU",
                hint="name the file that it was made from",
            )
        return ""
    needed = strategy.engine == "native" or strategy.dtype in ("int8", "int4") or file.packed
    missing = unavailable_reason()
    if missing:
        if needed:
            raise UnavailableError(
                f"the native engine is missing: {missing}", hint="rwkv doctor --build"
            )
        return f"Running on torch, slower than the native engine: {missing} (rwkv doctor)"
    odd = _why_unsupported(file.dims)
    if odd and needed:
        raise UsageError(f"{file.checkpoint.path}: {odd}", hint="--engine torch")
    return odd and f"Running on torch: {odd}"


def _why_unsupported(dims: Dims) -> str | None:
    """Say what the native engine has no code for; None when it runs the model."""
    width = next((dims.letters[w] for w in "CA" if dims.letters[w] % _STEP), None)
    if width:
        return f"the native engine needs widths that are multiples of {_STEP}, this has {width}"
    size = dims.letters.get("N", _HEAD_SIZES[0])
    if size not in _HEAD_SIZES:
        return f"the native engine has no code for heads of {size} channels"
    return None


def _native(
    file: ModelFile, strategy: Strategy, progress: Progress | None
) -> tuple[Engine, str | None]:
    """Make the engine, and say what its user should know."""
    from rwkv_cli.engine.native_engine import NativeEngine
    from rwkv_cli.engine.native_weights import start_state
    from rwkv_cli.engine.packing import packed_or_cached
    from rwkv_cli.native.pool import Pool

    pool = Pool(strategy.threads or usual_threads(file.checkpoint.path))
    notices: list[str] = []
    file, tensors = packed_or_cached(file, strategy.dtype, pool, progress, notices.append)
    dtype = file.packed.dtype if file.packed else strategy.dtype or _stored(file)
    start = start_state(file)
    engine = NativeEngine(tensors, file.arch, file.dims, pool, dtype=dtype, start=start)
    return engine, notices[0] if notices else None


def _stored(file: ModelFile) -> str:
    """Name the precision that the matrices of a file have."""
    stored = file.checkpoint.tensors["head.weight"].dtype
    return {"BF16": "bf16", "F16": "fp16"}.get(stored, "fp32")


def _torch(file: ModelFile, strategy: Strategy, progress: Progress | None) -> Engine:
    import torch

    from rwkv_cli.engine.torch_engine import TorchEngine
    from rwkv_cli.engine.torch_weights import is_available, load_stack, out_of_memory

    path, dtype, threads = file.checkpoint.path, strategy.dtype, strategy.threads
    if not is_available(strategy.device):
        raise UsageError(
            f"there is no {strategy.device} here that torch can use", hint="--device cpu"
        )
    if strategy.device == "cpu" and usual_threads(path) == 1:
        # Widening the weights of a small model would take a fifth of the time of a token.
        dtype, threads = dtype or "fp32", threads or 1
    if threads:
        torch.set_num_threads(threads)
    try:
        stack = load_stack(file.checkpoint, file.arch, file.dims, dtype, strategy.device, progress)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        raise LimitError(
            f"{path}: not enough memory on {strategy.device} to load it",
            hint="a smaller precision needs less: --dtype bf16",
        ) from error
    return TorchEngine(stack, file.arch, file.dims, strategy.device)
