"""A World vocabulary packed by the C++ library: a file that is mapped, never parsed, and the
encoder over it. native/src/world.cpp describes the bytes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import overload

from rwkv_cli.errors import LimitError, RwkvError, StorageError
from rwkv_cli.files import write_atomic
from rwkv_cli.native.library import ABI, NativeError, UnavailableError, check, library
from rwkv_cli.places import cache_folder

_SIZES = struct.Struct("=QIII")  # bytes of all tokens, ids, longest token, cells
_SIZES_AT, _LABEL_AT, _SILENT_AT, _CELLS_AT = 32, 56, 120, 128
_DIGEST = 32  # the label is two of them: of the source, of the vocabulary
_PIECE = 1 << 16  # tokens that are written before they become Python numbers
_MOST_BYTES = 1 << 30
_FULL = -4  # RWKV_FULL


class PackedVocabulary(Sequence[bytes]):
    """Bytes of each id from 0 on, and the encoder over them, in memory that is read as it is.

    Attributes:
        source: SHA-256 of the file that the vocabulary was read from.
        digest: SHA-256, in hex, of the vocabulary.
        longest: Bytes of the longest token.
    """

    def __init__(self, memory: bytearray | mmap.mmap) -> None:
        """Take the memory over.

        Raises:
            NativeError: It is no packed vocabulary, or a damaged one.
            UnavailableError: There is no C++ library.
        """
        self._native = _functions()
        self._held = (ctypes.c_char * len(memory)).from_buffer(memory)
        self._size = len(memory)
        check(self._native.rwkv_world_check(self._held, self._size))
        view = memoryview(memory)
        sizes: tuple[int, int, int, int] = _SIZES.unpack_from(view, _SIZES_AT)
        text_bytes, self._count, self.longest, cells = sizes
        label = bytes(view[_LABEL_AT : _LABEL_AT + 2 * _DIGEST])
        self.source, self.digest = label[:_DIGEST], label[_DIGEST:].hex()
        (self._silent,) = struct.unpack_from("=I", view, _SILENT_AT)
        starts = _CELLS_AT + 8 * cells
        text = starts + 4 * (self._count + 1)
        self._starts = view[starts:text].cast("I")
        self._text = view[text : text + text_bytes]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, token: int) -> bytes: ...

    @overload
    def __getitem__(self, token: slice) -> list[bytes]: ...

    def __getitem__(self, token: int | slice) -> bytes | list[bytes]:
        """Bytes of an id, or of several."""
        if isinstance(token, slice):
            return [self[each] for each in range(*token.indices(self._count))]
        if not -self._count <= token < self._count:
            raise IndexError(token)
        place = token % self._count
        return self._text[self._starts[place] : self._starts[place + 1]].tobytes()

    def silent_ids(self) -> list[int]:
        """Give the ids from 1 on that have no bytes."""
        if self._silent == 1:  # id 0 alone
            return []
        starts = self._starts.tolist()
        return [token for token in range(1, self._count) if starts[token] == starts[token + 1]]

    def encode(self, text: bytes) -> list[int]:
        """Tokens of any bytes: always the longest one that fits, from left to right."""
        position = ctypes.c_int64(0)
        room = min(len(text), _PIECE)
        buffer = array("i", bytes(4 * room))
        target = (ctypes.c_int32 * room).from_buffer(buffer)
        tokens: list[int] = []
        while position.value < len(text):
            count = self._native.rwkv_world_encode(
                self._held, self._size, text, len(text), ctypes.byref(position), target, room
            )
            check(count)
            tokens += buffer[:count]
        return tokens


def cached_vocabulary(
    source: bytes, read: Callable[[], tuple[Sequence[bytes], str]]
) -> PackedVocabulary | None:
    """Give the packed vocabulary of a file from the cache, into which it is put the first time.

    Args:
        source: SHA-256 of the file.
        read: Gives what the file says, the bytes of each id from 0 on, and the digest of that; it
            is called when the cache has no sound copy.

    Returns:
        None where there is no C++ library, or the cache cannot be written, or the vocabulary is
        larger than can be packed.
    """
    try:
        path = cache_folder() / "vocabularies" / f"{source.hex()[:24]}-{ABI}.bin"
        found = _mapped(path, source)
        if found is not None:
            return found
        memory = pack(*read(), source)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, [memoryview(memory)])
        return _mapped(path, source)
    except (UnavailableError, NativeError, LimitError, StorageError, OSError):
        return None


def pack(table: Sequence[bytes], digest: str, source: bytes) -> bytearray:
    """Pack a vocabulary.

    Args:
        table: Bytes of each id from 0 on, every single byte among them and none twice.
        digest: SHA-256, in hex, of the vocabulary.
        source: SHA-256 of what it was read from.

    Raises:
        NativeError: It is no such table.
        UnavailableError: There is no C++ library.
    """
    native = _functions()
    text, lengths = b"".join(table), array("I", map(len, table))
    given = (ctypes.c_uint32 * len(lengths)).from_buffer(lengths)
    label = source + bytes.fromhex(digest)
    size = ctypes.c_int64(4 * len(text) + 16 * len(table) + (1 << 16))
    code = _FULL
    while code == _FULL:  # the first guess at the size may be too small
        memory = bytearray(size.value)
        target = (ctypes.c_char * len(memory)).from_buffer(memory)
        code = native.rwkv_world_pack(
            text, len(text), given, len(table), label, target, len(memory), ctypes.byref(size)
        )
        del target  # a bytearray that is looked into cannot change its size
    check(code)
    del memory[size.value :]
    return memory


def _mapped(path: Path, source: bytes) -> PackedVocabulary | None:
    """Map a file of the cache; None when there is none, or when it is damaged or another's.

    Raises:
        UnavailableError: There is no C++ library.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= _MOST_BYTES:
                return None
            memory = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
        found = PackedVocabulary(memory)
    except UnavailableError:
        raise
    except (OSError, RwkvError):
        return None
    return found if found.source == source else None


@cache
def _functions() -> ctypes.CDLL:
    """Give the library, its functions of this file declared."""
    native = library()
    memory, size, sizes = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)
    lengths = ctypes.POINTER(ctypes.c_uint32)
    tokens = ctypes.POINTER(ctypes.c_int32)
    text = ctypes.c_char_p
    native.rwkv_world_pack.argtypes = [text, size, lengths, size, text, memory, size, sizes]
    native.rwkv_world_check.argtypes = [memory, size]
    native.rwkv_world_encode.argtypes = [memory, size, text, size, sizes, tokens, size]
    native.rwkv_world_encode.restype = size
    return native
