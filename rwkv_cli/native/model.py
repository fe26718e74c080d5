"""The model of the C++ library: made of tensors, fed with tokens, advancing states in place."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rwkv_cli.native.library import NativeError, check, library
from rwkv_cli.native.pool import Pool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]

TYPES = ("fp32", "bf16", "fp16", "int8", "int4")  # rwkv_type
ROWS, PANELS = 0, 1  # rwkv_layout


@dataclass(frozen=True, slots=True)
class NativeTensor:
    """A matrix or a vector as the library takes it (native/src/formats.h).

    Attributes:
        name: Its name in BlinkDL's checkpoints.
        type: An index of `TYPES`.
        layout: `ROWS` or `PANELS`.
        rows: Outputs; the numbers of a vector.
        cols: Inputs; 1 for a vector.
        data: Its bytes.
    """

    name: str
    type: int
    layout: int
    rows: int
    cols: int
    data: Any


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("type", c_int32),
        ("layout", c_int32),
        ("rows", c_int64),
        ("cols", c_int64),
        ("data", c_void_p),
        ("bytes", c_int64),
    )


class Config(ctypes.Structure):
    """Version (40, 50, 51, 52, 60 or 70) and sizes of a model."""

    _fields_ = tuple(
        (name, c_int32)
        for name in (
            "version", "layers", "width", "attention", "heads", "head_size", "ffn", "vocab",
        )
    )  # fmt: skip


class NativeModel:
    """Runs a model; one call computes a token of every state, or a whole prefill.

    Attributes:
        instruction_set: Name of its kernels.
    """

    def __init__(self, config: Config, tensors: Sequence[NativeTensor], pool: Pool) -> None:
        self._library = _declared()
        self._kept = (tensors, pool)  # the library points into them
        views = [np.frombuffer(tensor.data, np.uint8) for tensor in tensors]
        table = (_Tensor * len(tensors))(
            *(
                _Tensor(t.name.encode(), t.type, t.layout, t.rows, t.cols, v.ctypes.data, v.nbytes)
                for t, v in zip(tensors, views, strict=True)
            )
        )
        self._handle = c_void_p()
        check(
            self._library.rwkv_model_new(
                byref(config), table, len(tensors), pool.handle, byref(self._handle)
            )
        )
        self._vocab = config.vocab
        self._state_arrays = int(self._library.rwkv_state_arrays(self._handle))
        name = self._library.rwkv_model_instruction_set(self._handle)
        self.instruction_set: str = name.decode()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.rwkv_model_free(self._handle)

    def forward(
        self,
        tokens: Sequence[int],
        lengths: Sequence[int],
        states: Sequence[Sequence[Float32s]],
        logits: Sequence[Float32s | None],
    ) -> None:
        """Feed `lengths[s]` tokens to each state s, in place.

        Args:
            tokens: Those of the first state, then of the second, and so on.
            lengths: One or more each.
            states: Arrays of each state in the order of the version's table, each (layers, ...)
                float32 and contiguous.
            logits: For each state (V,) float32 where the scores after its last token go; None where
                they are not wanted, which saves computing them.

        Raises:
            NativeError: A token, a length, a state or a place for logits makes no sense.
        """
        ids = np.asarray(tokens, dtype=np.int32)
        counts = np.asarray(lengths, dtype=np.int32)
        # The library sees addresses alone, so what it cannot check is checked here.
        if not len(states) == len(logits) == len(counts) or len(ids) != counts.sum(dtype=np.int64):
            raise NativeError(f"{len(ids)} tokens and {len(states)} states do not fit the lengths")
        if (counts < 1).any():
            raise NativeError("a sequence has no tokens")
        if any(len(arrays) != self._state_arrays for arrays in states):
            raise NativeError(f"a state of this model has {self._state_arrays} arrays")
        if any(row is not None and row.shape != (self._vocab,) for row in logits):
            raise NativeError(f"logits of this model are {self._vocab} numbers")
        addresses = [_address(array) for arrays in states for array in arrays]
        places = [None if row is None else _address(row) for row in logits]
        check(
            self._library.rwkv_forward(
                self._handle,
                ids.ctypes.data,
                counts.ctypes.data,
                len(counts),
                (c_void_p * len(addresses))(*addresses),
                (c_void_p * len(places))(*places),
            )
        )


def _address(array: Float32s) -> int:
    """Give where an array of a state or of logits lies.

    Raises:
        NativeError: It is not float32 in one piece that may be written.
    """
    if array.dtype != np.float32 or not array.flags.carray:
        raise NativeError("an array is not float32 in one writable piece")
    return int(array.ctypes.data)


def instruction_sets() -> list[str]:
    """List the kernels that run on this machine, the best one last."""
    buffer = ctypes.create_string_buffer(256)
    check(_declared().rwkv_instruction_sets(buffer, len(buffer)))
    return buffer.value.decode().split()


def choose_instruction_set(name: str | None) -> None:
    """Make models that are loaded from now on use these kernels; None takes the best.

    Raises:
        NativeError: The library or the machine has none of that name.
    """
    check(_declared().rwkv_choose_instruction_set(name.encode() if name else None))


@cache
def _declared() -> ctypes.CDLL:
    """Give the library with the types of the functions used here."""
    lib = library()
    lib.rwkv_instruction_sets.argtypes = (c_char_p, c_size_t)
    lib.rwkv_choose_instruction_set.argtypes = (c_char_p,)
    lib.rwkv_model_new.argtypes = (
        POINTER(Config), POINTER(_Tensor), c_size_t, c_void_p, POINTER(c_void_p),
    )  # fmt: skip
    lib.rwkv_model_free.argtypes = (c_void_p,)
    lib.rwkv_model_free.restype = None
    lib.rwkv_model_instruction_set.argtypes = (c_void_p,)
    lib.rwkv_model_instruction_set.restype = c_char_p
    lib.rwkv_state_arrays.argtypes = (c_void_p,)
    lib.rwkv_forward.argtypes = (c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_void_p)
    return lib
