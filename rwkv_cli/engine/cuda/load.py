"""From a weights file to a model on a card with kernels of our own, or to the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rwkv_cli.engine.cuda.decode import HEAD_SIZES
from rwkv_cli.engine.cuda.device import CudaDevice, Device, overlap_pays
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.selftest import Verdict, judge
from rwkv_cli.engine.cuda.weights import DTYPES, load_weights, precision
from rwkv_cli.engine.modelfile import ModelFile, check_precision
from rwkv_cli.engine.packing import cached_file
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.engine.torch_weights import out_of_memory
from rwkv_cli.errors import StorageError
from rwkv_cli.native.cuda import cache
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.cuda.loading import TYPES_OF, Found, find
from rwkv_cli.native.library import UnavailableError, unavailable_reason
from rwkv_cli.native.pool import Pool

Progress = Callable[[int], None]

_WIDTH = 32  # widths must be a multiple of it
_RIGHT = b"agrees with torch"
_RIGHT_PLAIN = b"agrees with torch, one kernel after the other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        engine: The engine; None when there is none.
        why: Why there is none, or why it does without some of its kernels.
        notice: What its user should know besides, such as that kernels were compiled just now.
    """

    engine: CudaEngine | None = None
    why: str | None = None
    notice: str | None = None


def cuda_engine(file: ModelFile, strategy: Strategy, progress: Progress | None) -> Outcome:
    """Load a model onto a card of torch's.

    Args:
        file: An open weights file.
        strategy: The card, the precision, and the threads that pack weights.
        progress: Called with the bytes of each tensor as it is there.

    Raises:
        RefusedError: A number is too large for the wanted precision.
        UsageError: A packed file has another precision than is asked for.
        UnavailableError: The kernels have failed so badly that the card cannot be used any more.
    """
    check_precision(file, strategy.dtype)
    dtype = precision(file, strategy.dtype)
    odd = _why_unsupported(file, dtype)
    if odd:
        return Outcome(why=odd)
    device, found = open_device(strategy.device, TYPES_OF[dtype])
    if device is None:
        return Outcome(why=found.why)
    device.programmatic = device.programmatic and overlap_pays(file.dims.width, dtype)
    with device.guard():
        verdict = _verdict(device, file, dtype, found.key)
        if not verdict.decodes and not verdict.reads:
            return Outcome(why=verdict.why)
        told = [found.notice] if found.notice else []
        pool = None if dtype in DTYPES and not file.packed else Pool(strategy.threads or 1)
        if pool:
            file = cached_file(file, dtype, pool, progress, told.append)
        weights = load_weights(file, dtype, device.place, pool, progress)
        engine = CudaEngine(device, weights, decodes=verdict.decodes, reads=verdict.reads)
    return Outcome(engine, verdict.why, "; ".join(told) or None)


def open_device(name: str, types: int) -> tuple[Device | None, Found]:
    """Open a card with the kernels for it; None, and why, where there are no kernels.

    Args:
        name: What torch calls the card; without a number, the current one.
        types: A bit for each type of weights, as of `loading.find`.
    """
    place = torch.device(name)
    if place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    with torch.cuda.device(place):
        torch.zeros(1, device=place)  # makes the context, which kernels are loaded into
        found = find(place.index, types)
    return (CudaDevice(place, found.kernels) if found.kernels else None), found


def _why_unsupported(file: ModelFile, dtype: str) -> str | None:
    """Say what the kernels have no code for; None when they run the model."""
    letters = file.dims.letters
    width = next((letters[w] for w in "CAF" if letters[w] % _WIDTH), None)
    if width:
        return f"the CUDA kernels need widths that are multiples of {_WIDTH}, this has {width}"
    if letters.get("N", HEAD_SIZES[0]) not in HEAD_SIZES:
        return f"the CUDA kernels have no code for heads of {letters['N']} channels"
    missing = unavailable_reason() if dtype not in DTYPES or file.packed else None
    return missing and f"packing weights needs the native library: {missing}"


def _verdict(device: Device, file: ModelFile, dtype: str, key: str) -> Verdict:
    """Compare the kernels with torch, unless these have been found right on this card before; if
    they are wrong where one begins before the other ends, they run one after the other.
    """
    size = file.dims.letters.get("N", HEAD_SIZES[0])
    how = "overlapped" if device.programmatic else "plain"
    name = cache.key([key, device.name, torch.__version__, file.arch.name, str(size), dtype, how])
    known = cache.read(name)
    if known in (_RIGHT, _RIGHT_PLAIN):
        device.programmatic = device.programmatic and known == _RIGHT
        return Verdict(decodes=True, reads=True)
    try:
        verdict, found = judge(device, file.arch, size, dtype), _RIGHT
        if verdict.why and device.programmatic:
            device.programmatic = False
            verdict, found = judge(device, file.arch, size, dtype), _RIGHT_PLAIN
    except (CudaError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        why = f"they fail on {device.name}: {str(error).partition(chr(10))[0]}"
        _require_alive(device, why)
        return Verdict(decodes=False, reads=False, why=why)
    if verdict.why is None:
        try:
            cache.write(name, found)
        except StorageError:
            return verdict  # then the next process compares again
    return verdict


def _require_alive(device: Device, why: str) -> None:
    """Make sure that torch can still use a card: a kernel that reads where it must not takes all
    else in its process along.

    Raises:
        UnavailableError: It cannot.
    """
    try:
        torch.zeros(1, device=device.place).cpu()
    except RuntimeError as error:
        raise UnavailableError(
            f"the CUDA kernels cannot be used: {why}", hint="--kernels torch"
        ) from error
