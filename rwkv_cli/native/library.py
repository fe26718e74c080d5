"""Finds and loads the C++ library, and turns its error codes into exceptions."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import rwkv_cli.native
from rwkv_cli.errors import LimitError, RwkvError
from rwkv_cli.native.sources import FILE_NAME
from rwkv_cli.places import named_native_library

ABI = 2  # RWKV_NATIVE_ABI of native/include/rwkv_native.h

_NO_MEMORY = -2
_BUILD = "rwkv doctor --build"


class UnavailableError(RwkvError):
    """There is no C++ library, or none that fits this program."""

    exit_code = 3


class NativeError(RwkvError):
    """A function of the C++ library refused its arguments."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the search for the library came to.

    Attributes:
        library: The loaded library; None when there is none.
        path: Its file.
        why: Why there is none, or why a nearer one was passed over; None when all is well.
    """

    library: ctypes.CDLL | None = None
    path: Path | None = None
    why: str | None = None


def library() -> ctypes.CDLL:
    """Give the library, loaded once; calls into it release the interpreter's lock.

    Raises:
        UnavailableError: There is none; the message says why.
    """
    found = find()
    if found.library is None:
        raise UnavailableError(found.why or "there is no native library", hint=_BUILD)
    return found.library


def is_available() -> bool:
    """Tell whether the library can be used."""
    return find().library is not None


def unavailable_reason() -> str | None:
    """Say why the library cannot be used; None when it can."""
    found = find()
    return None if found.library else found.why


def check(code: int) -> None:
    """Turn a negative status of a function of the library into an exception.

    Raises:
        LimitError: There was not enough memory.
        NativeError: Anything else; the message is rwkv_last_error's.
    """
    if code >= 0:
        return
    text = library().rwkv_last_error().decode("utf-8", "replace") or f"native error {code}"
    raise LimitError(text) if code == _NO_MEMORY else NativeError(text)


@cache
def find() -> Found:
    """Search: the file that `RWKV_NATIVE_LIBRARY` names, or the one that was installed, or the one
    that was built later. Who names one gets that or none.
    """
    named = named_native_library()
    if named is not None:
        try:
            return Found(_load(named), named)
        except UnavailableError as error:
            return Found(why=f"RWKV_NATIVE_LIBRARY: {error.message}")
    why = None
    for path in _candidates():
        try:
            return Found(_load(path), path, why)
        except UnavailableError as error:
            why = why or error.message
    return Found(why=why or "it was installed without a C++ compiler, and none was built since")


def forget() -> None:
    """Search again at the next call: a library has been built."""
    find.cache_clear()


def _candidates() -> Iterator[Path]:
    """Give the files that exist. The package has several folders when it is installed to be edited:
    its sources, and what was compiled. What was built later is named by a hash over all sources,
    which takes time, so it is looked for when nothing else will do.
    """
    installed = (Path(folder) / "lib" / FILE_NAME for folder in rwkv_cli.native.__path__)
    yield from filter(Path.is_file, installed)
    from rwkv_cli.native.build import built_library

    built = built_library()
    if built and built.is_file():
        yield built


def _load(path: Path) -> ctypes.CDLL:
    """Load a file, if its interface is the one this program knows.

    Raises:
        UnavailableError: It is not, or the file cannot be loaded.
    """
    if not path.is_file():
        raise UnavailableError(f"no such file: {path}")
    try:
        loaded = ctypes.CDLL(str(path.resolve()))
        version = int(loaded.rwkv_abi_version())
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"{path}: cannot be loaded: {error}") from error
    if version != ABI:
        raise UnavailableError(f"{path}: has interface {version}, this program needs {ABI}")
    loaded.rwkv_last_error.restype = ctypes.c_char_p
    return loaded
