"""Named buffers of a checkpoint; knows dtypes and shapes, not what any tensor is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import TracebackType

from rwkv_cli.checkpoints.source import Origin, Source
from rwkv_cli.errors import RefusedError

# Bytes of one element, under the names of the safetensors specification.
ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U32": 4,
    "U8": 1,
    "BOOL": 1,
}
# The largest published model has some 2,100; a file cannot make us hold millions.
MAX_TENSORS = 16_384
MAX_DIMS = 8
MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One tensor as it lies in the file.

    Attributes:
        name: Its name.
        dtype: Type of its elements, a key of `ITEM_BYTES`.
        shape: Outermost dimension first.
        data: Its elements, row-major, little-endian, in a writable view of single bytes. Writes
            stay in this process. A file may place them at any byte, so nothing is promised
            about alignment. Where `derive` is set: the bytes in the file that it reads.
        derive: Makes the elements where the file holds them in another form (quantized, turned
            around, to be merged); None where `data` are the elements.
        coding: Name of that form where it has fewer bits than `dtype`, such as "Q4_K".
        derive_rows: Makes as many rows of the first dimension as the second argument says, from the
            one that the first says; None where that is no cheaper than all of them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    derive: Callable[[], memoryview] | None = None
    coding: str | None = None
    derive_rows: Callable[[int, int], memoryview] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return self.data.nbytes

    def plain(self) -> RawTensor:
        """The tensor with its elements as `data`; those that are derived are new with each call,
        so that who asks decides how long they stay in memory.
        """
        if self.derive is None:
            return self
        return replace(self, data=self.derive(), derive=None, coding=None, derive_rows=None)

    def plain_rows(self, start: int, count: int) -> RawTensor:
        """Some rows of a tensor that has `derive_rows`, as a tensor with its elements as `data`: a
        large one needs never be whole in memory.
        """
        if self.derive_rows is None:
            raise ValueError(f"{self.name} cannot be derived in parts")
        data, shape = self.derive_rows(start, count), (count, *self.shape[1:])
        return RawTensor(self.name, self.dtype, shape, data)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a reader finds in a file: tensors in file order and short notes beside them.

    The sources are the files that the tensors lie in, where that is not the one that was read.
    """

    tensors: list[RawTensor]
    metadata: dict[str, str]
    sources: tuple[Source, ...] = ()


class Checkpoint:
    """An open weights file; a context manager.

    Attributes:
        path: Where the file lies.
        format: "pth", "safetensors", "rwkv.cpp", "GGUF", "folder" or "memory".
        tensors: Name to tensor, in file order; empty once closed.
        metadata: Notes in the file that are no tensors.
    """

    path: Path
    format: str
    tensors: dict[str, RawTensor]
    metadata: dict[str, str]

    def __init__(self, path: Path, format_name: str, contents: Contents) -> None:
        self.path = path
        self.format = format_name
        self.tensors = {tensor.name: tensor for tensor in contents.tensors}
        self.metadata = contents.metadata
        self._sources = contents.sources

    @classmethod
    def in_memory(cls, path: Path, tensors: Iterable[RawTensor]) -> Checkpoint:
        """Make a checkpoint of tensors that lie in no file; `path` is for messages."""
        made = cls.__new__(cls)
        made.path, made.format, made.metadata = path, "memory", {}
        made.tensors = {tensor.name: tensor for tensor in tensors}
        made._sources = ()
        return made

    @property
    def file_bytes(self) -> int:
        """Size of the file, or of all files of weights in a folder."""
        return sum(source.size for source in self._sources)

    def release(self, tensor: RawTensor) -> None:
        """Gives back the memory behind a tensor; reading it again fetches it from disk.

        Changes made to its bytes are lost where the system can drop pages.
        """
        for source in self._sources:
            source.forget(tensor.data)

    @contextmanager
    def scattered_reads(self) -> Iterator[None]:
        """Within it the kernel reads no pages ahead, for a look at a little of everything; after
        it no page is resident, and changes made to bytes are lost.
        """
        with ExitStack() as stack:
            for source in self._sources:
                stack.enter_context(source.scattered_reads())
            yield

    def close(self) -> None:
        """Lets go of the file; its memory is unmapped when the last view of it is gone.

        Unmapping at once would pull the bytes from under arrays that still use them:
        `torch.frombuffer` keeps the view alive but holds no lock on it.
        """
        self.tensors = {}
        self._sources = ()

    def __enter__(self) -> Checkpoint:
        """The checkpoint itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes."""
        self.close()


def printable(text: str, limit: int = 80) -> str:
    """Text from a file, cut and escaped so that a message can carry it."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode("ascii")
        for char in cut
    )


def check_name(name: str, source: Origin) -> str:
    """The name itself, when a tensor may be called so.

    Raises:
        RefusedError: It is empty, too long or has characters that do not print.
    """
    if name and len(name) <= MAX_NAME and name.isprintable():
        return name
    raise source.refused(f"has a tensor with an unusable name: {printable(name)!r}")


def mapped(source: Source, name: str, dtype: str, shape: tuple[int, ...], offset: int) -> RawTensor:
    """A tensor whose bytes are used where they lie in the file.

    Raises:
        RefusedError: It has too many dimensions or does not lie inside the file.
    """
    if len(shape) > MAX_DIMS:
        raise source.refused(f"has a tensor of {len(shape)} dimensions: {name}")
    nbytes = prod(shape) * ITEM_BYTES[dtype]
    return RawTensor(name, dtype, shape, source.take(offset, nbytes, f"tensor {name}"))


def check_tensors(tensors: list[RawTensor], source: Origin) -> None:
    """Checks that there is at least one tensor, and that every name is used once.

    Raises:
        RefusedError: Otherwise.
    """
    seen: set[str] = set()
    for tensor in tensors:
        if tensor.name in seen:
            raise twice(tensor.name, source)
        seen.add(tensor.name)
    if not seen:
        raise source.refused("holds no tensors")


def twice(name: str, source: Origin) -> RefusedError:
    """The error for a name that appears more than once."""
    return source.refused(f"is corrupt: it names {printable(name)} twice")
