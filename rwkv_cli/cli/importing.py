"""Imports what a command needs, cheaply: this is most of the time of a short command."""

from __future__ import annotations

import gc
import os
from importlib import import_module
from types import ModuleType

_BLAS = "OPENBLAS_NUM_THREADS"  # read once, when numpy is loaded


def import_quickly(name: str) -> ModuleType:
    """Import a module and what it imports.

    Nothing that is imported is garbage, so no garbage is looked for on the way. And numpy gets no
    threads for matrix products: it would start one on every core, and they spin for 30 ms each
    while nobody has work for them; products are the engines' work, which have threads of their own.
    Whoever sets the variable has it their way; it is gone when other libraries look for it.
    """
    ours = _BLAS not in os.environ
    if ours:
        os.environ[_BLAS] = "1"
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.enable()
        if ours:
            del os.environ[_BLAS]
