"""The kernels in the memory of one card, and launching them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from rwkv_cli.native.cuda import driver as cu
from rwkv_cli.native.cuda.driver import Device, Driver
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.cuda.structures import signatures

Grid = tuple[int, int, int]

_SHARED_WITHOUT_ASKING = 48 << 10  # bytes
_FIRST_PROGRAMMATIC = 90, (12, 3)  # compute capability, and driver: that can have them in graphs


@dataclass(frozen=True, slots=True)
class Usage:
    """What a kernel was compiled to.

    Attributes:
        registers: For each thread.
        local: Bytes of memory for each thread, where registers did not suffice.
        threads: The most that a block may have.
    """

    registers: int
    local: int
    threads: int


class Kernels:
    """The compiled kernels, loaded into the context that is current on this thread.

    Attributes:
        device: The card, with its limits.
        programmatic: Whether card and driver know programmatic launches.
    """

    def __init__(self, driver: Driver, ordinal: int, image: bytes) -> None:
        """Load them.

        Args:
            driver: The driver.
            ordinal: Number of the card, as torch counts.
            image: A cubin, or PTX with its final zero.

        Raises:
            CudaError: The driver refuses the image, or no context of the card is current.
        """
        self._context, current = ctypes.c_void_p(), ctypes.c_int()
        driver.call("cuCtxGetCurrent", ctypes.byref(self._context))
        if not self._context.value:
            raise CudaError(f"nothing has been done on cuda:{ordinal} yet: it has no context")
        driver.call("cuCtxGetDevice", ctypes.byref(current))
        self.device: Device = driver.device(ordinal)
        if current.value != ordinal:
            raise CudaError(f"the current card is cuda:{current.value}, not cuda:{ordinal}")
        sm, version = _FIRST_PROGRAMMATIC
        self.programmatic = self.device.sm >= sm and driver.version >= version
        self._driver, self._signatures = driver, signatures()
        self._module = ctypes.c_void_p()
        driver.call("cuModuleLoadData", ctypes.byref(self._module), image)
        self._kernels: dict[str, ctypes.c_void_p] = {}
        self._large: set[str] = set()

    def make_current(self) -> None:
        """Make the context of the kernels current on this thread, as launching needs it.

        Raises:
            CudaError: The driver failed.
        """
        self._driver.call("cuCtxSetCurrent", self._context)

    def launch(
        self,
        name: str,
        grid: Grid,
        threads: int,
        shared: int,
        arguments: ctypes.Structure,
        stream: int,
        programmatic: bool = False,
    ) -> None:
        """Put a kernel into a stream; its arguments are copied before this returns.

        Args:
            name: The kernel.
            grid: Blocks in each dimension.
            threads: For each block.
            shared: Bytes of shared memory for each block.
            arguments: The structure that the kernel takes.
            stream: Handle of the stream, 0 for the default one.
            programmatic: The kernel may start while the one before it in the stream still runs,
                and waits for it by itself. Where there are no such launches, it is a plain one.

        Raises:
            CudaError: There is no such kernel, or it cannot be launched so.
        """
        kernel = self._prepared(name, shared)
        self._check_arguments(name, arguments)
        values = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        if programmatic and self.programmatic:
            attribute = cu.LaunchAttribute(id=cu.PROGRAMMATIC_SERIALIZATION, value=1)
            config = cu.LaunchConfig(
                grid, (threads, 1, 1), shared, stream, ctypes.pointer(attribute), 1
            )
            self._driver.call(
                "cuLaunchKernelEx", ctypes.byref(config), kernel, values, None, kernel=name
            )
            return
        how = (*grid, threads, 1, 1, shared, stream, values, None)
        self._driver.call("cuLaunchKernel", kernel, *how, kernel=name)

    def blocks(self, name: str, threads: int, shared: int) -> int:
        """Count the blocks of a kernel that one multiprocessor runs at the same time.

        Raises:
            CudaError: There is no such kernel, or its blocks cannot be so large.
        """
        count = ctypes.c_int()
        kernel = self._prepared(name, shared)
        self._call(
            name, "cuOccupancyMaxActiveBlocksPerMultiprocessor", count, kernel, threads, shared
        )
        return count.value

    def usage(self, name: str) -> Usage:
        """Tell what a kernel was compiled to.

        Raises:
            CudaError: There is no such kernel.
        """
        kernel, found = self._prepared(name, 0), []
        for which in (cu.REGISTERS, cu.LOCAL, cu.THREADS):
            value = ctypes.c_int()
            self._call(name, "cuFuncGetAttribute", value, which, kernel)
            found.append(value.value)
        return Usage(*found)

    def _prepared(self, name: str, shared: int) -> ctypes.c_void_p:
        """Find a kernel, and ask for more shared memory than a block has without asking."""
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = ctypes.c_void_p()
            self._call(name, "cuModuleGetFunction", kernel, self._module, name.encode())
            self._kernels[name] = kernel
            # All memory of a multiprocessor that can be shared is, for every kernel: where two want
            # different parts of it, the second waits for the first to leave.
            self._driver.call("cuFuncSetAttribute", kernel, cu.CARVEOUT, 100, kernel=name)
        if shared > _SHARED_WITHOUT_ASKING and name not in self._large:
            limit = self.device.shared
            if shared > limit:
                raise CudaError(
                    f"{shared} bytes of shared memory are needed, the card has {limit}", kernel=name
                )
            self._driver.call("cuFuncSetAttribute", kernel, cu.DYNAMIC_SHARED, limit, kernel=name)
            self._large.add(name)
        return kernel

    def _check_arguments(self, name: str, arguments: ctypes.Structure) -> None:
        """Make sure that a kernel gets what it takes: it would read anything else as that.

        Raises:
            TypeError: It does not.
        """
        wanted, given = self._signatures[name].arguments, type(arguments)
        if given is not wanted:
            raise TypeError(f"{name} takes {wanted.__name__}, not {given.__name__}")

    def _call(self, kernel: str, function: str, result: Any, *arguments: Any) -> None:
        """Call a function of the driver that writes its result first of all."""
        self._driver.call(function, ctypes.byref(result), *arguments, kernel=kernel)
