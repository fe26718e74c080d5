"""Loading with torch, where there is a torch: what is missing is said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rwkv_cli.engine.model import Progress
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import LimitError, UsageError
from rwkv_cli.native.library import UnavailableError

if TYPE_CHECKING:
    from rwkv_cli.engine.torch_engine import TorchEngine


def torch_engine(file: ModelFile, strategy: Strategy, progress: Progress | None) -> TorchEngine:
    """Load a model onto devices of torch's: one, or those of the segments.

    Raises:
        UnavailableError: There is no torch.
        UsageError: It cannot use a device.
        LimitError: There is not enough memory.
    """
    if strategy.segments:
        return _split(file, strategy, progress)
    require_device(strategy.device)
    import torch

    from rwkv_cli.engine.torch_engine import TorchEngine
    from rwkv_cli.engine.torch_weights import load_stack

    if strategy.threads:
        torch.set_num_threads(strategy.threads)
    checkpoint, dtype, device = file.checkpoint, strategy.dtype, strategy.device
    with enough_memory(file, device, "bf16"):
        stack = load_stack(checkpoint, file.arch, file.dims, dtype, device, progress)
    return TorchEngine(stack, file.arch, file.dims, device)


def _split(file: ModelFile, strategy: Strategy, progress: Progress | None) -> TorchEngine:
    """Load a model whose layers go to several places."""
    if file.packed:
        from rwkv_cli.engine.plan import not_in_parts

        raise not_in_parts(file)
    devices = list(dict.fromkeys(segment.device for segment in strategy.segments))
    for device in devices:
        require_device(device)
    import torch

    from rwkv_cli.engine.segments import places
    from rwkv_cli.engine.torch_split import split_engine

    if strategy.threads:
        torch.set_num_threads(strategy.threads)
    with enough_memory(file, " and ".join(devices), None):
        return split_engine(file, places(strategy.segments, file.dims.layers + 1), progress)


def require_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UnavailableError: There is no torch to use it with.
        UsageError: Torch cannot use it.
    """
    try:
        from rwkv_cli.engine.torch_weights import is_available
    except (ImportError, OSError) as error:  # OSError: a library that torch itself needs is missing
        raise UnavailableError(
            f"torch is needed for this, and cannot be imported: {error}",
            hint="pip install torch" if device == "cpu" else "--device cpu",
        ) from error
    if not is_available(device):
        raise UsageError(
            f"there is no {device} here that torch can use",
            hint=f"--device cpu, or --strategy auto, in place of what names {device}",
        )


@contextmanager
def enough_memory(file: ModelFile, device: str, smaller: str | None) -> Iterator[None]:
    """Say plainly that a model does not fit.

    Args:
        file: The model.
        device: Where it does not fit.
        smaller: A precision that would need less memory; None where there is none.

    Raises:
        LimitError: It does not.
    """
    from rwkv_cli.engine.torch_weights import out_of_memory

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            raise
        raise LimitError(
            f"{file.checkpoint.path}: not enough memory on {device} to load it",
            hint=smaller and f"a smaller precision needs less: --dtype {smaller}",
        ) from error
