"""Reads .safetensors files; stricter than their specification, knows no architecture.

Format: 8 bytes little-endian length of the header, the header as JSON, then the bytes of all
tensors without a hole (https://github.com/huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from rwkv_cli.checkpoints.bounded_json import TooDeepError, TooManyValuesError, parse
from rwkv_cli.checkpoints.source import Source
from rwkv_cli.checkpoints.tensors import (
    ITEM_BYTES,
    MAX_DIMS,
    MAX_TENSORS,
    Contents,
    RawTensor,
    check_name,
    mapped,
    printable,
)

# The specification allows 100 MB; a model of 2,000 tensors takes 0.3 MB.
MAX_HEADER = 8 << 20
_PREFIX = 8
_FIELDS = {"dtype", "shape", "data_offsets"}


class _DuplicateKeyError(ValueError):
    """A JSON object has the same key twice."""


def read(source: Source) -> Contents:
    """Tensors in the order of their bytes, and the file's `__metadata__`.

    Raises:
        RefusedError: The header is malformed, or does not describe the bytes exactly.
    """
    start, header = _read_header(source)
    notes = _metadata(source, header.pop("__metadata__", {}))
    if len(header) > MAX_TENSORS:
        raise source.refused(f"names {len(header)} tensors, more than any model has")
    spans = [(*_span(source, name, entry), name, entry) for name, entry in header.items()]
    spans.sort(key=lambda span: span[:2])
    edge = 0
    tensors: list[RawTensor] = []
    for begin, end, name, entry in spans:
        if begin != edge:
            raise source.refused(f"is corrupt: there is a hole or an overlap before {name}")
        tensors.append(_tensor(source, name, entry, start + begin, end - begin))
        edge = end
    if start + edge != source.size:
        raise source.refused(
            f"is cut short or corrupt: its tensors need {start + edge} bytes, "
            f"the file has {source.size}"
        )
    return Contents(tensors, notes)


def _read_header(source: Source) -> tuple[int, dict[str, object]]:
    """Where the tensors start, and the header as JSON."""
    length = int.from_bytes(source.take(0, _PREFIX, "the header length"), "little")
    if length > MAX_HEADER:
        raise source.refused(f"is corrupt: its header would have {length} bytes")
    text = bytes(source.take(_PREFIX, length, "the header"))
    try:
        header = parse(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except TooManyValuesError:
        raise source.refused("has a header with more entries than any model needs") from None
    except _DuplicateKeyError as error:
        raise source.refused(f"is corrupt: it names {error} twice") from None
    except TooDeepError:
        raise source.refused("has a header that is nested too deeply") from None
    except ValueError:
        # JSONDecodeError, UnicodeDecodeError and integers of thousands of digits.
        raise source.refused("is corrupt: its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise source.refused("is corrupt: its header is no JSON object")
    return _PREFIX + length, header


def _unique(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for key, value in pairs:
        if key in table:
            raise _DuplicateKeyError(printable(key))
        table[key] = value
    return table


def _no_constant(text: str) -> object:
    raise ValueError(text)


def _metadata(source: Source, notes: object) -> dict[str, str]:
    if isinstance(notes, dict) and all(isinstance(value, str) for value in notes.values()):
        return notes
    raise source.refused("is corrupt: its __metadata__ is no table of texts")


def _span(source: Source, name: str, entry: object) -> tuple[int, int]:
    check_name(name, source)
    if not isinstance(entry, dict) or set(entry) != _FIELDS:
        raise source.refused(f"is corrupt: the header of {name} has wrong fields")
    offsets = entry["data_offsets"]
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise source.refused(f"is corrupt: the position of {name} makes no sense")
    return offsets[0], offsets[1]


def _tensor(source: Source, name: str, entry: object, offset: int, nbytes: int) -> RawTensor:
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape = fields["dtype"], fields["shape"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise source.refused(f"has a tensor of an unsupported type: {name}, {_shown(dtype)}")
    if not _are_counts(shape) or len(shape) > MAX_DIMS:
        raise source.refused(f"is corrupt: the shape of {name} makes no sense")
    if prod(shape) * ITEM_BYTES[dtype] != nbytes:
        raise source.refused(
            f"is corrupt: {name} has {nbytes} bytes, its shape and type need another number"
        )
    return mapped(source, name, dtype, tuple(shape), offset)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 63 for value in values
    )


def _shown(value: object) -> str:
    return printable(value) if isinstance(value, str) else "not named by a text"
