"""The CUDA driver as Python calls it: the few functions that loading and launching kernels need.

Names, numbers and layouts are those of `cuda.h`. Nothing here makes a context: whoever owns the
memory has made one.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_void_p
from dataclasses import dataclass
from typing import Any

from rwkv_cli.native.cuda.errors import CudaError

NAME = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
OLDEST = (12, 0)  # the oldest driver that a supported version of torch runs on

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MULTIPROCESSORS, _MAJOR, _MINOR, _SHARED_OPTIN = 16, 75, 76, 97  # CU_DEVICE_ATTRIBUTE_...
PROGRAMMATIC_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
THREADS, STATIC_SHARED, LOCAL, REGISTERS = 0, 1, 3, 4  # CU_FUNC_ATTRIBUTE_...
DYNAMIC_SHARED, CARVEOUT = 8, 9


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: a number, and a union of 64 bytes of which only the first integer is used
    here.
    """

    _fields_ = (
        ("id", c_int),
        ("pad", ctypes.c_char * 4),
        ("value", c_int),
        ("rest", ctypes.c_char * 60),
    )


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("stream", c_void_p),
        ("attributes", POINTER(LaunchAttribute)),
        ("count", c_uint),
    )


_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuCtxGetCurrent": (POINTER(c_void_p),),
    "cuCtxGetDevice": (POINTER(c_int),),
    "cuCtxSetCurrent": (c_void_p,),
    "cuModuleLoadData": (POINTER(c_void_p), c_char_p),
    "cuModuleGetFunction": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuFuncGetAttribute": (POINTER(c_int), c_int, c_void_p),
    "cuLaunchKernel": (c_void_p, *[c_uint] * 7, c_void_p, POINTER(c_void_p), c_void_p),
    "cuLaunchKernelEx": (POINTER(LaunchConfig), c_void_p, POINTER(c_void_p), c_void_p),
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": (POINTER(c_int), c_void_p, c_int, c_size_t),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
}


@dataclass(frozen=True, slots=True)
class Device:
    """A card.

    Attributes:
        ordinal: Its number, the same as torch's.
        name: What it is sold as.
        sm: Compute capability, 90 for 9.0.
        memory: Bytes.
        multiprocessors: How many it has.
        shared: Bytes of shared memory that one block may have at most.
    """

    ordinal: int
    name: str
    sm: int
    memory: int
    multiprocessors: int
    shared: int


class Driver:
    """The loaded and initialised driver.

    Attributes:
        version: The newest CUDA that it supports, (13, 0) for 13.0.
    """

    def __init__(self) -> None:
        """Load it.

        Raises:
            CudaError: There is no driver, or it is too old, or it does not work.
        """
        self._functions = _functions()
        number = c_int()
        self.call("cuDriverGetVersion", ctypes.byref(number))
        self.version = (number.value // 1000, number.value % 1000 // 10)
        if self.version < OLDEST:
            raise CudaError(
                f"the CUDA driver ({dotted(self.version)}) is too old, {dotted(OLDEST)} is needed"
            )
        self.call("cuInit", 0)

    def call(self, function: str, *arguments: Any, kernel: str | None = None) -> None:
        """Call a function.

        Args:
            function: Its name in `cuda.h`.
            arguments: As ctypes takes them.
            kernel: The kernel that the call is about, for the message.

        Raises:
            CudaError: It failed.
        """
        status = self._functions[function](*arguments)
        if status:
            raise CudaError(f"{function}: {self._said(status)}", code=status, kernel=kernel)

    def _said(self, status: int) -> str:
        """Give the driver's name for a status, and its sentence."""
        name, text = c_char_p(), c_char_p()
        if self._functions["cuGetErrorName"](status, ctypes.byref(name)) or not name.value:
            return f"CUDA error {status}"
        self._functions["cuGetErrorString"](status, ctypes.byref(text))
        return f"{name.value.decode()} ({(text.value or b'').decode('utf-8', 'replace')})"

    def devices(self) -> list[Device]:
        """List the cards that this process may use.

        Raises:
            CudaError: The driver failed.
        """
        count = c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return [self.device(ordinal) for ordinal in range(count.value)]

    def device(self, ordinal: int) -> Device:
        """Describe a card.

        Raises:
            CudaError: There is no such card.
        """
        handle, memory, name = c_int(), c_size_t(), ctypes.create_string_buffer(256)
        self.call("cuDeviceGet", ctypes.byref(handle), ordinal)
        self.call("cuDeviceGetName", name, len(name), handle)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)

        def attribute(which: int) -> int:
            value = c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(value), which, handle)
            return value.value

        return Device(
            ordinal,
            name.value.decode("utf-8", "replace"),
            attribute(_MAJOR) * 10 + attribute(_MINOR),
            memory.value,
            attribute(_MULTIPROCESSORS),
            attribute(_SHARED_OPTIN),
        )


def no_card(error: CudaError) -> bool:
    """Tell whether an error means that there is a driver, but nothing for it to drive."""
    return error.code == _NO_DEVICE


def dotted(version: tuple[int, int]) -> str:
    """Write a version as people do."""
    return f"{version[0]}.{version[1]}"


def _functions() -> dict[str, Any]:
    """Load the driver and declare its functions.

    Raises:
        CudaError: There is none, or one of the functions is missing.
    """
    try:
        library = ctypes.CDLL(NAME)
    except OSError as error:
        raise CudaError(f"there is no CUDA driver: {NAME} cannot be loaded") from error
    found = {}
    for name, types in _FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise CudaError(f"the CUDA driver is too old: it has no {name}") from error
        function.argtypes, function.restype = types, c_int
        found[name] = function
    return found
