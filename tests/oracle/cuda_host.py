"""The CUDA kernels on the CPU: compiled by g++ on the shim of native/test/cuda.

Kernels work on the memory of numpy arrays (or torch's). Within a launch, threads take turns in an
order that a seed decides; every launch has another, so that a missing barrier shows in the end.

In a process with the address sanitizer (`sanitized_environment`) the library is an instrumented
one: there, a kernel that reads or writes beyond an array or its shared memory ends the process with
a report.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[2] / "native"
SHIM = NATIVE / "test" / "cuda"
SOURCES = [str(SHIM / name) for name in ("host.cpp", "block.cpp", "fibre.cpp")]
FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


class HostKernels:
    """The kernels of one library."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self._library.rwkv_host_error.restype = ctypes.c_char_p
        self._library.rwkv_host_kernel.restype = ctypes.c_char_p
        self._library.rwkv_host_arguments_bytes.restype = ctypes.c_int64
        self._seeds = itertools.count()

    def names(self) -> list[str]:
        """The kernels' names, in the order of the source."""
        found = map(self._library.rwkv_host_kernel, itertools.count())
        return [name.decode() for name in itertools.takewhile(lambda name: name is not None, found)]

    def arguments_bytes(self, name: str) -> int:
        """The size of a kernel's structure as C++ lays it out; -1 where there is no such kernel."""
        return int(self._library.rwkv_host_arguments_bytes(name.encode()))

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        arguments: ctypes.Structure,
        seed: int | None = None,
    ) -> None:
        """Runs a kernel to its end.

        Args:
            name: the kernel's.
            grid: blocks in x, y and z.
            threads: of a block.
            shared: bytes of dynamic shared memory of a block.
            arguments: the kernel's structure.
            seed: of the order of blocks and threads; without, another one each time.

        Raises:
            RuntimeError: for what a GPU would refuse, hang at or fault at.
        """
        expected, given = self.arguments_bytes(name), ctypes.sizeof(arguments)
        if expected not in (-1, given):
            raise RuntimeError(f"{name} takes {expected} bytes of arguments, not {given}.")
        order = next(self._seeds) if seed is None else seed
        code = self._library.rwkv_host_launch(
            name.encode(), *grid, threads, shared, ctypes.byref(arguments), ctypes.c_uint(order)
        )
        if code:
            raise RuntimeError(f"{self._library.rwkv_host_error().decode()} (seed {order})")


def compiler() -> str | None:
    """The C++ compiler, if there is one that the shim is for."""
    return None if sys.platform == "win32" else shutil.which("g++")


@functools.cache
def host_kernels(source: str = "../../cuda/rwkv.cu") -> HostKernels:
    """The kernels of a source (relative to native/test/cuda), compiled if they are not yet."""
    return HostKernels(build(source, sanitized=is_sanitized()))


def is_sanitized() -> bool:
    """Whether this process has the address sanitizer, as an instrumented library needs it."""
    return hasattr(ctypes.CDLL(None), "__asan_init")


def sanitized_environment() -> dict[str, str] | None:
    """The variables with which a Python has the address sanitizer; None where there is none."""
    found = _output([compiler() or "g++", "-print-file-name=libasan.so"]).strip()
    if not Path(found).is_absolute():
        return None
    # Python does not free everything at its end. With malloc for its own objects, the arrays of
    # ctypes are watched as well.
    options = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    return os.environ | options | {"PYTHONMALLOC": "malloc", "LD_PRELOAD": found}


def build(source: str, *, sanitized: bool) -> Path:
    """Compiles the library unless that of the same sources is there, and returns its place."""
    command = [compiler() or "g++", *FLAGS, *(SANITIZE if sanitized else [])]
    command += [f"-I{SHIM}", f'-DSHIM_KERNELS="{source}"']
    library = _folder() / f"{_digest(command)}.so"
    if not library.exists():
        # Several processes may be at it: each writes a file of its own, and the last one stays.
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / "kernels.so"
            _output([*command, "-shared", *SOURCES, "-o", str(made)])
            made.replace(library)
    return library


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"rwkv-cuda-host-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _digest(command: list[str]) -> str:
    """Of the compiler's call and of all that it reads."""
    digest = hashlib.sha256("\0".join(command).encode())
    for source in SOURCES:
        digest.update(_output([*command, "-E", source]).encode())
    return digest.hexdigest()[:16]


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed.\n{done.stderr}")
    return done.stdout
