"""Writes packed weights files: where they were asked for, or in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from rwkv_cli.engine.modelfile import ModelFile, open_model
from rwkv_cli.engine.native_weights import Prepared, Progress, load_tensors, prepared
from rwkv_cli.engine.packcache import cached_path
from rwkv_cli.engine.packed import BLOCK, FORMAT, LAYOUT, stored_form
from rwkv_cli.engine.placement import QUANTIZED, packed_size, placements, wanted
from rwkv_cli.errors import LimitError, MismatchError, RefusedError, StorageError
from rwkv_cli.files import reason, remove_leftovers, replacing
from rwkv_cli.native.model import NativeTensor
from rwkv_cli.native.pool import Pool
from rwkv_cli.sizes import require_room

_PAGE = 4096
_FAR = 10**15  # a place with as many digits as any

_Span = tuple[int, int]


def write_packed(
    file: ModelFile, dtype: str, path: Path, pool: Pool, progress: Progress | None = None
) -> list[str]:
    """Pack a model into a file, a tensor at a time.

    Args:
        file: An open weights file that is not packed.
        dtype: "int8", "int4", "bf16", "fp16" or "fp32".
        path: The file to write; one that is there is replaced.
        pool: Threads that do it.
        progress: Called with the bytes of each tensor of the original as it is written.

    Returns:
        Names of the tensors that stayed in 16 bits because too much of them would be lost.

    Raises:
        RefusedError: The file is packed already.
        StorageError: The disk refused; there is no new file.
        LimitError: There is not enough memory.
    """
    if file.packed:
        raise RefusedError(
            f"{file.checkpoint.path}: is packed already, as {file.packed.dtype}",
            hint="name the file that it was made from",
        )
    require_room(path.parent, _expected(file, dtype))
    try:
        with replacing(path) as out:
            return _write(out, file, dtype, prepared(file, dtype, pool, progress))
    except MemoryError as error:
        raise LimitError(f"{file.checkpoint.path}: not enough memory to pack it") from error


def packed_or_cached(
    file: ModelFile,
    dtype: str | None,
    pool: Pool,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[ModelFile, list[NativeTensor]]:
    """Prepare a model; one that is wanted quantized is packed once and kept in the cache.

    Args:
        file: An open weights file.
        dtype: As `load_tensors` takes it.
        pool: Threads that do it.
        progress: Called with the bytes of each tensor of the file as it is ready.
        tell: Called with a line for the user when the packed weights could not be kept.

    Returns:
        The file that the tensors lie in, and the tensors.

    Raises:
        LimitError: There is not enough memory.
        UsageError: The file is packed in another precision.
    """
    ready = cached_file(file, dtype, pool, progress, tell)
    return ready, load_tensors(ready, dtype, pool, progress if ready is file else None)


def cached_file(
    file: ModelFile,
    dtype: str | None,
    pool: Pool,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> ModelFile:
    """Pack a model that is wanted quantized, once, and give the packed file in the cache; for any
    other, and where nothing can be kept, it is the file itself. Arguments as of `packed_or_cached`.

    Raises:
        LimitError: There is not enough memory.
    """
    if file.packed or dtype not in QUANTIZED:
        return file
    try:
        return _cached(file, dtype, pool, progress)
    except (StorageError, OSError) as error:
        if tell:
            why = error.message if isinstance(error, StorageError) else reason(error)
            tell(f"The packed weights are not kept for the next time: {why}")
        return file


def _cached(file: ModelFile, dtype: str, pool: Pool, progress: Progress | None) -> ModelFile:
    """Open the cached packing of a model, made now where there is none that fits."""
    path = cached_path(file, dtype)
    ready = _opened(path, file, dtype)
    if ready is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        write_packed(file, dtype, path, pool, progress)
        ready = _opened(path, file, dtype)
    if ready is None:
        raise StorageError(f"{path} is not what was written")
    return ready


def _opened(path: Path, original: ModelFile, dtype: str) -> ModelFile | None:
    """Open a cached packing, if it is there, whole, and of these weights."""
    if not path.is_file():
        return None
    try:
        file = open_model(path)
    except (RefusedError, MismatchError):
        return None
    packed = file.packed
    fits = packed and packed.dtype == dtype and packed.weights == original.fingerprint()
    return file if fits else None


def _expected(file: ModelFile, dtype: str) -> int:
    """Give the bytes of a packed file; a tensor that will stay in 16 bits makes it larger."""
    raws = file.checkpoint.tensors
    return sum(
        packed_size(place, wanted(place, raws[place.name].coding or raws[place.name].dtype, dtype))
        for place in placements(file.arch, file.dims, raws.keys())
    )


def _write(out: BinaryIO, file: ModelFile, dtype: str, tensors: Iterator[Prepared]) -> list[str]:
    """Write the tensors behind room for the header, then the header."""
    notes = _notes(file, dtype)
    room = _room(file, notes)
    out.write(bytes(room))
    entries: list[tuple[Prepared, _Span]] = []
    begin = 0
    for one in tensors:
        # The header needs all but the bytes, which would fill the memory.
        empty = Prepared(one.place, one.dtype, memoryview(b""), one.error)
        size = one.data.nbytes
        out.write(one.data)
        out.write(bytes(-size % BLOCK))
        file.checkpoint.release(file.checkpoint.tensors[one.place.name])
        end = begin + size + -size % BLOCK
        entries.append((empty, (begin, end)))
        begin = end
        del one
    out.seek(0)
    header = _header(notes, entries)
    out.write((room - 8).to_bytes(8, "little") + header.ljust(room - 8))
    return [e.place.name for e, _ in entries if e.dtype == "bf16" and e.error is not None]


def _notes(file: ModelFile, dtype: str) -> dict[str, str]:
    notes = {
        "format": FORMAT,
        "layout": LAYOUT,
        "dtype": dtype,
        "weights": file.fingerprint(),
        "version": file.arch.name,
        "rwkv.template": file.template,
    }
    if file.tokenizer:
        notes["rwkv.tokenizer"] = file.tokenizer
    return notes


def _room(file: ModelFile, notes: dict[str, str]) -> int:
    """Reserve whole pages for a header whose numbers are not known yet."""
    longest = [
        (Prepared(place, "int8", memoryview(b""), 0.0001234), (_FAR, _FAR))
        for place in placements(file.arch, file.dims, file.checkpoint.tensors.keys())
    ]
    return -(-(len(_header(notes, longest)) + 8) // _PAGE) * _PAGE + _PAGE


def _header(notes: dict[str, str], entries: Iterable[tuple[Prepared, _Span]]) -> bytes:
    """Write the header as JSON."""
    table: dict[str, object] = {}
    tensors: dict[str, object] = {}
    for one, span in entries:
        kind, shape = stored_form(one.place, one.dtype)
        table[one.place.name] = {"dtype": kind, "shape": shape, "data_offsets": span}
        error = None if one.error is None else float(f"{one.error:.3g}")
        tensors[one.place.name] = [one.dtype, one.place.shape, error]
    compact = json.dumps(tensors, separators=(",", ":"))
    head = {"__metadata__": {**notes, "tensors": compact}, **table}
    return json.dumps(head, separators=(",", ":")).encode()
