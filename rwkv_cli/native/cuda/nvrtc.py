"""NVRTC, the compiler of CUDA C++ that comes with every CUDA build of torch as a library: finding
it without torch, and calling it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwkv_cli.native.cuda.driver import dotted
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.cuda.search import PATTERN, WINDOWS, candidates

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "nvrtcVersion": (POINTER(c_int), POINTER(c_int)),
    "nvrtcGetNumSupportedArchs": (POINTER(c_int),),
    "nvrtcGetSupportedArchs": (POINTER(c_int),),
    "nvrtcCreateProgram": (
        POINTER(c_void_p), c_char_p, c_char_p, c_int, POINTER(c_char_p), POINTER(c_char_p),
    ),
    "nvrtcDestroyProgram": (POINTER(c_void_p),),
    "nvrtcCompileProgram": (c_void_p, c_int, POINTER(c_char_p)),
    "nvrtcGetCUBINSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetCUBIN": (c_void_p, c_char_p),
    "nvrtcGetPTXSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetPTX": (c_void_p, c_char_p),
    "nvrtcGetProgramLogSize": (c_void_p, POINTER(c_size_t)),
    "nvrtcGetProgramLog": (c_void_p, c_char_p),
}  # fmt: skip


class _Address(ctypes.Structure):
    """Dl_info: what `dladdr` tells about an address."""

    _fields_ = (
        ("file", c_char_p),
        ("base", c_void_p),
        ("symbol", c_char_p),
        ("address", c_void_p),
    )


@dataclass(frozen=True, slots=True)
class Compiler:
    """A loaded NVRTC.

    Attributes:
        path: Its file.
        version: (13, 0) for 13.0.
        architectures: The compute capabilities that it knows, 90 for 9.0, ascending.
        functions: Its functions by name.
    """

    path: Path
    version: tuple[int, int]
    architectures: tuple[int, ...]
    functions: Mapping[str, Any]

    def target(self, sm: int) -> str:
        """Name what to compile for: the card itself, or, where it is newer than this compiler, the
        newest instructions of PTX that it has in common, which the driver translates.

        Raises:
            CudaError: The card is too old.
        """
        if sm in self.architectures:
            return f"sm_{sm}"
        older = [known for known in self.architectures if known < sm]
        if not older:
            oldest = self.architectures[0]
            raise CudaError(
                f"NVRTC {dotted(self.version)} compiles for sm_{oldest} and newer, not for sm_{sm}"
            )
        return f"compute_{older[-1]}"

    def compile(
        self, main: str, headers: Mapping[str, str], target: str, options: Sequence[str] = ()
    ) -> bytes:
        """Compile a program.

        Args:
            main: Its text.
            headers: The text of what it may include, by name.
            target: A card such as "sm_90", or "compute_90".
            options: NVRTC's, but for the target.

        Returns:
            A cubin for a card, PTX with its final zero otherwise.

        Raises:
            CudaError: It cannot be compiled; the message has the first complaint.
        """
        program = c_void_p()
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            main.encode(),
            b"rwkv.cu",
            len(headers),
            _texts(headers.values()),
            _texts(headers),
        )
        try:
            words = [f"--gpu-architecture={target}", *options]
            status = self.functions["nvrtcCompileProgram"](program, len(words), _texts(words))
            if status:
                log = self._text(program, "nvrtcGetProgramLog").rstrip(b"\0")
                said = _complaint(log.decode("utf-8", "replace"))
                raise CudaError(
                    f"NVRTC {dotted(self.version)} cannot compile the kernels: {said}", code=status
                )
            kind = "nvrtcGetCUBIN" if target.startswith("sm_") else "nvrtcGetPTX"
            return self._text(program, kind)
        finally:
            self.functions["nvrtcDestroyProgram"](ctypes.byref(program))

    def _text(self, program: c_void_p, function: str) -> bytes:
        """Fetch what one function gives and another one gives the size of."""
        size = c_size_t()
        self._call(function + "Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(function, program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: Any) -> None:
        status = self.functions[function](*arguments)
        if status:
            raise CudaError(f"{function} failed with {status}", code=status)


def find(newest: tuple[int, int] | None = None) -> Compiler:
    """Find and load NVRTC: the one that this process has loaded already, or else the newest one in
    Python's packages, or else the system's.

    Args:
        newest: Version of the driver: of a later major version, it would refuse the cubins.

    Raises:
        CudaError: There is none that can be used.
    """
    why = None
    for name, mode in candidates():
        try:
            compiler = _load(ctypes.CDLL(name, mode=mode))
        except (OSError, AttributeError) as error:
            if Path(name).is_absolute():
                why = why or f"{name}: cannot be loaded: {error}"
            continue
        if newest is None or compiler.version[0] <= newest[0]:
            return compiler
        why = (
            f"the CUDA driver ({dotted(newest)}) is older than the compiler of kernels, "
            f"NVRTC {dotted(compiler.version)}"
        )
    raise CudaError(why or "NVRTC was not found: no " + PATTERN.replace("*", "12, 13 or newer"))


def _load(library: ctypes.CDLL) -> Compiler:
    """Declare its functions and ask it what it is.

    Raises:
        AttributeError: It lacks a function.
        OSError: The library that belongs to it cannot be loaded.
    """
    functions = {}
    for name, types in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, c_int
        functions[name] = function
    major, minor, count = c_int(), c_int(), c_int()
    functions["nvrtcVersion"](ctypes.byref(major), ctypes.byref(minor))
    functions["nvrtcGetNumSupportedArchs"](ctypes.byref(count))
    known = (c_int * count.value)()
    functions["nvrtcGetSupportedArchs"](known)
    path = _file_of(library)
    _load_builtins(path, major.value, minor.value)
    return Compiler(path, (major.value, minor.value), tuple(sorted(known)), functions)


def _load_builtins(path: Path, major: int, minor: int) -> None:
    """Load the second half of NVRTC, which it asks the system for by name although it lies beside.

    One that is loaded already is found by its name wherever it lies.
    """
    name = (
        f"nvrtc-builtins64_{major}{minor}.dll"
        if WINDOWS
        else f"libnvrtc-builtins.so.{major}.{minor}"
    )
    beside = path.resolve().parent / name
    if beside.is_file():
        ctypes.CDLL(str(beside))


def _file_of(library: ctypes.CDLL) -> Path:
    """Find the file of a library that may have been loaded by name."""
    if not WINDOWS:
        info = _Address()
        dladdr = ctypes.CDLL(None).dladdr
        dladdr.argtypes, dladdr.restype = (c_void_p, POINTER(_Address)), c_int
        address = ctypes.cast(library.nvrtcVersion, c_void_p)
        if dladdr(address, ctypes.byref(info)) and info.file:
            return Path(os.fsdecode(info.file))
    return Path(library._name)


def _texts(texts: Any) -> Any:
    """Make a C array of strings."""
    encoded = [text.encode() for text in texts]
    return (c_char_p * len(encoded))(*encoded)


def _complaint(log: str) -> str:
    """Pick the first line of a log that names an error."""
    lines = log.strip().splitlines() or ["it did not say why"]
    return next((line for line in lines if "error" in line), lines[0]).strip()
