"""What a .pth pickle may name, as inert values; knows torch's names, imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Name(Enum):
    """The functions a pickle may name; reaching one only builds an inert value."""

    ORDERED = "collections.OrderedDict"
    TENSOR = "torch._utils._rebuild_tensor_v2"
    PARAMETER = "torch._utils._rebuild_parameter"


# torch/storage.py, the classes under their legacy names.
STORAGE_DTYPES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}


@dataclass(frozen=True, slots=True)
class StorageType:
    """The element type of a storage."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements in the archive entry `data/<key>`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Ordered(dict[str, object]):
    """A collections.OrderedDict of the file; as any dict it keeps its order."""


def resolve(name: str) -> object | None:
    """What stands for a dotted name of the pickle; None when weights need no such name."""
    if name in STORAGE_DTYPES:
        return StorageType(STORAGE_DTYPES[name])
    return _NAMES.get(name)


def storage_of(described: object) -> Storage | None:
    """The storage that a persistent id describes; None when it describes anything else.

    torch writes ("storage", type, key, device, number of elements).
    """
    if type(described) is not tuple or len(described) != 5:
        return None
    tag, kind, key, _, count = described
    if tag != "storage" or not isinstance(kind, StorageType):
        return None
    if type(key) is not str or not _is_key(key) or not _is_count(count):
        return None
    return Storage(kind.dtype, key, count)


def call(function: object, arguments: object) -> object | None:
    """The value a call in the pickle describes; None when weights need no such call."""
    if isinstance(function, Name) and type(arguments) is tuple:
        return _BUILDERS[function](arguments)
    return None


def _is_key(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) <= 32


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_counts(values: object) -> bool:
    return type(values) is tuple and all(_is_count(value) for value in values)


def _ordered(arguments: tuple[object, ...]) -> object | None:
    return None if arguments else Ordered()


def _tensor(arguments: tuple[object, ...]) -> object | None:
    """Arguments: storage, offset, shape, strides, requires_grad, hooks and, from 2.1, metadata."""
    if len(arguments) not in (6, 7):
        return None
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or type(offset) is not int or offset < 0:
        return None
    if type(shape) is not tuple or type(strides) is not tuple or len(shape) != len(strides):
        return None
    if not _is_counts(shape) or not _is_counts(strides):
        return None
    return StoredTensor(storage, offset, shape, strides)


def _parameter(arguments: tuple[object, ...]) -> object | None:
    """Arguments: tensor, requires_grad, hooks."""
    if len(arguments) == 3 and isinstance(arguments[0], StoredTensor):
        return arguments[0]
    return None


_NAMES = {name.value: name for name in Name}
_BUILDERS: dict[Name, Callable[[tuple[object, ...]], object | None]] = {
    Name.ORDERED: _ordered,
    Name.TENSOR: _tensor,
    Name.PARAMETER: _parameter,
}
