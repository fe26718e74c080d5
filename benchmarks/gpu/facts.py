"""What the card is, and what it gives at best."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from gpu.cards import Cards, RealCards
from gpu.record import Unit, Values
from rwkv_cli.engine.cuda.device import Device
from rwkv_cli.engine.cuda.program import Program, constant, shared_bytes
from rwkv_cli.native.cuda import nvrtc
from rwkv_cli.native.cuda.driver import Driver, dotted
from rwkv_cli.native.cuda.loading import OPTIONS, TYPES_OF
from rwkv_cli.native.cuda.source import source
from rwkv_cli.native.cuda.structures import signatures

_BUFFER = 2 << 30  # bytes: many times the second-level cache
_SQUARE = 8192


def units(cards: RealCards) -> list[Unit]:
    """List the part's units."""
    return [
        Unit("card", lambda: describe(cards)),
        Unit("ceilings", lambda: ceilings(cards)),
        Unit("compiling", lambda: compiling(cards)),
        Unit("launches", lambda: launches(cards)),
        Unit("registers", lambda: registers(cards)),
    ]


def describe(cards: RealCards) -> Values:
    """Name card, driver, torch and compiler."""
    found = torch.cuda.get_device_properties(cards.place)
    yield "name", found.name
    yield "compute capability", f"{found.major}.{found.minor}"
    yield "multiprocessors", found.multi_processor_count
    yield "memory GB", round(found.total_memory / 1e9, 1)
    yield "second-level cache MB", round(getattr(found, "L2_cache_size", 0) / 1e6, 1)
    driver = Driver()
    yield "CUDA of the driver", dotted(driver.version)
    yield "shared memory of a block", driver.device(cards.place.index).shared
    yield "torch", f"{torch.__version__}, CUDA {torch.version.cuda}"
    yield "Python", platform.python_version()
    yield "float32 products", "TF32" if torch.backends.cuda.matmul.allow_tf32 else "float32"
    asked = ["name", "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit"]
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    yield "nvidia-smi (" + ", ".join(asked) + ")", done.stdout.strip()


def ceilings(cards: Cards, size: int = _BUFFER, square: int = _SQUARE) -> Values:
    """Measure reading, copying and multiplying, of random numbers."""
    yield "read GB/s", round(read_bandwidth(cards, size) / 1e9, 1)
    yield "copy GB/s (read and written)", round(copy_bandwidth(cards, size) / 1e9, 1)
    yield "matmul fp16 TFLOP/s", round(matmul_rate(cards, square) / 1e12, 1)


def read_bandwidth(cards: Cards, size: int = _BUFFER) -> float:
    """Give the bytes a second that the best of some readers of torch's gets."""
    x = torch.empty(size // 4, device=cards.place).normal_()
    square = x.view(-1, 1024)
    readers: list[Callable[[], Any]] = [
        lambda: x.sum(), lambda: square.amax(1), lambda: torch.linalg.vector_norm(x),
    ]  # fmt: skip
    return max(x.numel() * 4 / cards.time(reader, 0.15) for reader in readers)


def copy_bandwidth(cards: Cards, size: int = _BUFFER) -> float:
    """Give the bytes a second, read and written, of a copy on the card."""
    a = torch.empty(size // 4, device=cards.place).normal_()
    b = torch.empty_like(a)
    return 2 * a.numel() * 4 / cards.time(lambda: b.copy_(a), 0.15)


def matmul_rate(cards: Cards, square: int = _SQUARE) -> float:
    """Give the operations a second of a large product of float16."""
    a, b = (torch.empty(square, square, device=cards.place).normal_().half() for _ in range(2))
    out = torch.empty_like(a)
    return 2 * square**3 / cards.time(lambda: torch.mm(a, b, out=out), 0.3)


def compiling(cards: RealCards) -> Values:
    """Time the compiler for the kernels of each precision, as its user waits for it."""
    driver = Driver()
    sm = driver.device(cards.place.index).sm
    compiler = nvrtc.find(driver.version)
    yield "NVRTC", f"{dotted(compiler.version)}, {compiler.path}"
    text, target = source(), compiler.target(sm)
    for dtype in ("fp16", "int4"):
        begin = time.monotonic()
        options = (*OPTIONS, f"-DRWKV_TYPES={TYPES_OF[dtype]}")
        image = compiler.compile(text.main, text.headers, target, options)
        took = round(time.monotonic() - begin, 2)
        yield f"seconds for {dtype}, {target}", took
        yield f"bytes for {dtype}", len(image)


def registers(cards: RealCards) -> Values:
    """Tell what kernels were compiled to: registers, bytes of memory for lack of them, and blocks
    that fit a multiprocessor when they need no shared memory.
    """
    for dtype in ("fp16", "int4"):  # those that `compiling` has left in the cache
        kernels = cards.kernels(TYPES_OF[dtype])
        for name, signature in sorted(signatures().items()):
            usage = kernels.usage(name)
            blocks = kernels.blocks(name, signature.threads, 0)
            yield f"{name} {dtype}", [usage.registers, usage.local, signature.threads, blocks]


def launches(cards: Cards, layers: int = 24, width: int = 768) -> Values:
    """Time a kernel that does next to nothing, in chains within a graph."""
    for programmatic in (False, True):
        device = cards.open("fp16", programmatic=programmatic)
        for each in (5, 13):
            run = device.captured(chain(device, each * layers, width).run)
            cards.wait()
            per = cards.time(run) / (each * layers)
            kind = "programmatic" if programmatic else "plain"
            yield f"us a kernel, {each} x {layers} in a graph, {kind}", round(per * 1e6, 3)


def chain(device: Device, count: int, width: int) -> Program:
    """Build a program that fetches one embedding again and again."""
    program = Program(device)
    norm = program.buffer("norm", (2, width))
    for _ in range(count):
        program.kernel(
            "embed",
            "EmbedArguments",
            (1, 1, 1),
            constant("kEndThreads"),
            shared_bytes(8 * 8),
            tokens=program.buffer("tokens", (1,), torch.int32),
            weights=program.buffer("weights", (1, width), torch.float16),
            norm_weight=norm[0],
            norm_bias=norm[1],
            x=program.buffer("x", (1, width)),
            type=2,
            width=width,
        )
    return program
