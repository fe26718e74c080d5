"""Finds ids that stand twice in a batch file, in eight bytes of memory for each row."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

from rwkv_cli.batch.jsonline import parse_object, short
from rwkv_cli.batch.kinds import OPENAI
from rwkv_cli.batch.reading import MAX_LINE, open_rows
from rwkv_cli.errors import UsageError

# Nearly all begin with it. A second one in the same object would make it no JSON.
_PLAIN = re.compile(rb'\s*\{\s*"custom_id"\s*:\s*"([^"\\]*)"')


def refuse_duplicates(path: Path, *, max_line: int = MAX_LINE) -> None:
    """Refuse a file in which two rows bear one id: their answers could not be told apart.

    Args:
        path: A file of requests for OpenAI's interface.
        max_line: Bytes of the longest row; the id of a longer one is not looked at.

    Raises:
        UsageError: There are two; the sentence names them.
    """
    import numpy as np

    marks = array("Q", (_mark(found) for _, _, found in _ids(path, max_line)))
    ranked = np.sort(np.frombuffer(marks, dtype=np.uint64)) if marks else np.zeros(0, np.uint64)
    twice = set(ranked[1:][ranked[1:] == ranked[:-1]].tolist())
    first: dict[bytes, int] = {}  # two ids may share a mark
    for line, record, found in _ids(path, max_line) if twice else ():
        if _mark(found) in twice and isinstance(parse_object(record), dict):
            before = first.setdefault(found, line)
            if before != line:
                name = short(found.decode())
                raise UsageError(
                    f"custom_id {name} stands in line {before:,} and in line {line:,}",
                    hint="each row needs an id of its own: answers are told apart by it",
                )


def _ids(path: Path, max_line: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Give the rows that have an id, or seem to: the line, the row, the id."""
    with open_rows(path, OPENAI, max_line=max_line) as source:
        for line, record in source.unread():
            if plain := _PLAIN.match(record):
                yield line, record, plain[1]
                continue
            fields = parse_object(record)
            found = fields.get("custom_id") if isinstance(fields, dict) else None
            if isinstance(found, str):
                yield line, record, found.encode()


def _mark(found: bytes) -> int:
    digest = hashlib.blake2b(found, digest_size=8).digest()
    return int.from_bytes(digest, "little")
