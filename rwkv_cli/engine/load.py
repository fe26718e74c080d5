"""From a weights file to a model that runs: its tokenizer, its engine, its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rwkv_cli.engine.described import describe_model
from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.placement import QUANTIZED, is_coded, why_unsupported
from rwkv_cli.engine.protocol import Engine
from rwkv_cli.engine.strategy import Budgets, Strategy, is_small
from rwkv_cli.engine.torch_load import enough_memory, require_device, torch_engine
from rwkv_cli.errors import LimitError, RefusedError, UsageError
from rwkv_cli.native.library import UnavailableError, unavailable_reason
from rwkv_cli.native.machine import default_threads
from rwkv_cli.text.tokenizer import ids_without_bytes

if TYPE_CHECKING:
    from rwkv_cli.engine.lorafile import Lora


def load_model(
    path: Path,
    strategy: Strategy,
    *,
    tokenizer: str | None = None,
    progress: Progress | None = None,
    loras: Sequence[Lora] = (),
) -> Model:
    """Load a model.

    Args:
        path: A weights file of any known format.
        strategy: Where it runs, and in which precision.
        tokenizer: Name or file of a tokenizer; None takes the one that belongs to the vocabulary.
        progress: Called with the bytes of each tensor as it is ready.
        loras: Files of trained changes to merge into it, in their order.

    Raises:
        NotFoundError: The file or its tokenizer is missing.
        RefusedError: It is damaged, or not a model that runs here.
        MismatchError: It was packed by another version of this program, or a file to merge is of
            another model.
        LimitError: The device has too little memory.
        UnavailableError: The strategy needs the C++ library, torch or CUDA kernels, and there are
            none.
        UsageError: The strategy cannot be had here.
    """
    known = describe_model(path, tokenizer=tokenizer, loras=loras)
    file, words = known.file, known.tokenizer
    engine, notice = _engine(file, strategy, progress)
    return Model(
        known.name,
        path,
        file.arch,
        file.dims,
        engine,
        replace(known.identity, numerics=engine.numerics),
        words,
        file.template,
        np.array(ids_without_bytes(words, file.dims.vocab), dtype=np.intp),
        notice,
    )


def _engine(
    file: ModelFile, strategy: Strategy, progress: Progress | None
) -> tuple[Engine, str | None]:
    """Choose and make the engine, and say what its user should know."""
    if strategy.auto:
        return _automatic(file, strategy, progress)
    if strategy.segments:
        strategy = _settled(file, strategy)
    if strategy.segments:
        return torch_engine(file, strategy, progress), None
    if strategy.device.startswith("cuda") and "torch" not in (strategy.engine, strategy.kernels):
        return _cuda(file, strategy, progress)
    why_torch = _why_torch(file, strategy)
    if why_torch is None:
        return _native(file, strategy, progress)
    return _torch(file, strategy, progress), why_torch or None


def _automatic(
    file: ModelFile, strategy: Strategy, progress: Progress | None
) -> tuple[Engine, str | None]:
    """Make the engine that suits the memory of this machine; a card that cannot be used after all
    is done without.
    """
    if is_small(file.checkpoint.path) and strategy.budgets == Budgets():
        # So small a model fits anywhere, and no card makes it faster: nothing to plan.
        return _engine(file, replace(strategy, auto=False), progress)
    from rwkv_cli.engine.plan import automatic

    chosen, notice = automatic(file, strategy)
    try:
        engine, told = _engine(file, chosen, progress)
    except (UnavailableError, UsageError, LimitError, RefusedError) as error:
        if chosen.device == "cpu" and not chosen.segments:
            raise
        on_cpu, notice = automatic(file, strategy, cards=False)
        engine, told = _engine(file, on_cpu, progress)
        notice = f"Running on the CPU: {error.message}"
    return engine, "; ".join(filter(None, (notice, told))) or None


def _settled(file: ModelFile, strategy: Strategy) -> Strategy:
    """Write out how many layers each segment gets; where one gets all of them, it is no more than a
    device and a precision.
    """
    from rwkv_cli.engine.segments import in_parts, settle

    segments = settle(strategy.segments, file.dims.layers + 1)
    first = segments[0]
    if not in_parts(segments):
        return replace(strategy, device=first.device, dtype=first.dtype, segments=())
    return replace(strategy, segments=segments)


def usual_threads(path: Path) -> int:
    """Give the number of threads a model runs on when nobody says another.

    A token of a small model is too little work to share: threads would wait for each other more
    than they gain, and badly so on a busy machine.
    """
    return 1 if is_small(path) else default_threads()


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
                f"{file.checkpoint.path}: is packed for the native engine and the CUDA kernels",
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
    odd = why_unsupported(file.dims)
    if odd and needed:
        raise UsageError(f"{file.checkpoint.path}: {odd}", hint="--engine torch")
    return odd and f"Running on torch: {odd}"


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
    # A file of fewer bits is packed once, and kept, as if int8 had been asked for.
    wanted = strategy.dtype or ("int8" if is_coded(file.checkpoint.tensors) else None)
    file, tensors = packed_or_cached(file, wanted, pool, progress, notices.append)
    dtype = file.packed.dtype if file.packed else wanted or file.floats
    start = start_state(file)
    engine = NativeEngine(tensors, file.arch, file.dims, pool, dtype=dtype, start=start)
    return engine, notices[0] if notices else None


def _cuda(
    file: ModelFile, strategy: Strategy, progress: Progress | None
) -> tuple[Engine, str | None]:
    """Make the engine of a card: with kernels of our own, or with torch alone and a word on why.

    Raises:
        UnavailableError: They are needed, and cannot be had; or they have broken the card.
        UsageError: There is no such card.
    """
    require_device(strategy.device)
    from rwkv_cli.engine.cuda.load import cuda_engine

    threads = strategy.threads or usual_threads(file.checkpoint.path)
    smaller = {"int8": "int4", "int4": None}.get(strategy.dtype or "", "int8")
    with enough_memory(file, strategy.device, None if file.packed else smaller):
        made = cuda_engine(file, replace(strategy, threads=threads), progress)
    if made.engine:
        partly = made.why and f"Some CUDA kernels are not used: {made.why}"
        return made.engine, partly or made.notice
    needed = strategy.kernels == "cuda" or strategy.dtype in ("int8", "int4") or file.packed
    if needed:
        raise UnavailableError(
            f"the CUDA kernels cannot be used: {made.why}", hint="rwkv doctor --torch"
        )
    engine = _torch(file, strategy, progress)
    return engine, f"CUDA kernels unavailable, running on torch: {made.why} (rwkv doctor --torch)"


def _torch(file: ModelFile, strategy: Strategy, progress: Progress | None) -> Engine:
    if strategy.device == "cpu" and usual_threads(file.checkpoint.path) == 1:
        # Widening the weights of a small model would take a fifth of the time of a token.
        dtype, threads = strategy.dtype or "fp32", strategy.threads or 1
        strategy = replace(strategy, dtype=dtype, threads=threads)
    if strategy.dtype in QUANTIZED:
        from rwkv_cli.engine.segments import Segment, settle

        one = Segment(strategy.device, file.floats, int(strategy.dtype.removeprefix("int")))
        strategy = replace(strategy, segments=settle((one,), file.dims.layers + 1))
    return torch_engine(file, strategy, progress)
