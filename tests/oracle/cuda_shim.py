"""Arguments of the little kernels that try the shim itself (native/test/cuda/shim_kernels.cuh)."""

from __future__ import annotations

import ctypes

import numpy as np

SOURCE = "shim_kernels.cuh"


class ShimArguments(ctypes.Structure):
    """The structure that they all take."""

    _fields_ = [
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("count", ctypes.c_int),
        ("choice", ctypes.c_int),
    ]


def arguments(
    source: np.ndarray, target: np.ndarray, count: int = 0, choice: int = 0
) -> ShimArguments:
    """The structure, which keeps the arrays that it points to."""
    filled = ShimArguments(source.ctypes.data, target.ctypes.data, count, choice)
    filled.arrays = source, target
    return filled
