"""From the sources of the kernels to kernels on a card, or to the reason why there are none."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rwkv_cli.errors import RwkvError, StorageError
from rwkv_cli.native.cuda import cache, nvrtc
from rwkv_cli.native.cuda.driver import Driver
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.cuda.kernels import Kernels
from rwkv_cli.native.cuda.source import source

OLDEST_CARD = 70  # compute capability; the kernels use instructions that older ones lack
# Of NVRTC. Sums are contracted where the source says so, the same for every batch.
OPTIONS = ("--std=c++17", "--fmad=false")
ALL_TYPES = 31
# The bits of a model's types (`Type` of native/cuda/device.cuh) by its precision. Of packed models
# some matrices stay fp16, and int4 keeps the head in int8.
TYPES_OF = {"fp32": 1, "bf16": 2, "fp16": 4, "int8": 12, "int4": 28}


@dataclass(frozen=True, slots=True)
class Found:
    """What the search for kernels came to.

    Attributes:
        kernels: The kernels; None when there are none.
        why: Why there are none; None when there are.
        notice: What their user should know, such as that they have been compiled just now.
        key: Names them: what is equal was compiled from the same, by the same, for the same.
    """

    kernels: Kernels | None = None
    why: str | None = None
    notice: str | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What kernels for a card are made of.

    Attributes:
        compiler: NVRTC.
        target: What it compiles for.
        options: What it is told besides.
        key: The name of the result in the cache.
    """

    compiler: nvrtc.Compiler
    target: str
    options: tuple[str, ...]
    key: str


def find(ordinal: int, types: int = ALL_TYPES) -> Found:
    """Load the kernels for a card, compiling them if the cache has none.

    Args:
        ordinal: Number of the card, as torch counts; its context must be current.
        types: A bit for each type of weights (`Type` of native/cuda/device.cuh) that they are to
            be compiled for: those of a model take a third of the time of all.
    """
    try:
        driver = Driver()
        plan = planned(driver, driver.device(ordinal).sm, types)
        image, notice = _image(plan)
        return Found(Kernels(driver, ordinal, image), notice=notice, key=plan.key)
    except RwkvError as error:
        return Found(why=error.message)


def planned(driver: Driver, sm: int, types: int = ALL_TYPES) -> Plan:
    """Find a compiler, and say what it would make for a card.

    Args:
        driver: The driver that will load the result.
        sm: Compute capability of the card, 90 for 9.0.
        types: As of `find`.

    Raises:
        CudaError: There is no compiler, or the card is too old.
        NotFoundError: The sources are missing.
    """
    if sm < OLDEST_CARD:
        raise CudaError(f"the kernels need a card of sm_{OLDEST_CARD} or newer, this is sm_{sm}")
    compiler = nvrtc.find(driver.version)
    target = compiler.target(sm)
    text = source()
    files = [part for item in sorted(text.headers.items()) for part in item]
    version = f"{compiler.version[0]}.{compiler.version[1]}"
    options = (*OPTIONS, f"-DRWKV_TYPES={types}")
    key = cache.key([version, target, *options, text.main, *files])
    return Plan(compiler, target, options, key)


def _image(plan: Plan) -> tuple[bytes, str | None]:
    """Give the compiled kernels, and what to tell about how they came to be."""
    image = cache.read(plan.key)
    if image is not None:
        return image, None
    text, begin = source(), time.monotonic()
    image = plan.compiler.compile(text.main, text.headers, plan.target, plan.options)
    what = f"CUDA kernels: compiled for {plan.target} in {time.monotonic() - begin:.1f} s"
    try:
        cache.write(plan.key, image)
    except StorageError as error:
        return image, f"{what}, but not kept: {error.message}"
    return image, f"{what} (cached)"
