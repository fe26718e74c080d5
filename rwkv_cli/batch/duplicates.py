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

_KEY = b'"custom_id"'  # inside a text of JSON, its marks would be escaped
_PLAIN = re.compile(_KEY + rb'\s*:\s*("[^"\\]*")')


def refuse_duplicates(path: Path, *, max_line: int = MAX_LINE) -> None:
    """Refuse a file in which two rows bear one id: their answers could not be told apart.

    Args:
        path: A file of requests for OpenAI's interface.
        max_line: Bytes of the longest row; the id of a longer one is not looked at.

    Raises:
        UsageError: There are two; the sentence names them.
    """
    import numpy as np

    marks = array("Q", (_mark(found) for _, found in _ids(path, max_line)))
    ranked = np.sort(np.frombuffer(marks, dtype=np.uint64)) if marks else np.zeros(0, np.uint64)
    twice = set(ranked[1:][ranked[1:] == ranked[:-1]].tolist())
    first: dict[str, int] = {}  # two ids may share a mark
    for line, found in _ids(path, max_line) if twice else ():
        if _mark(found) not in twice:
            continue
        before = first.setdefault(found, line)
        if before != line:
            raise UsageError(
                f"custom_id {short(found)} stands in line {before:,} and in line {line:,}",
                hint="each row needs an id of its own: answers are told apart by it",
            )


def _ids(path: Path, max_line: int) -> Iterator[tuple[int, str]]:
    """Give the ids of the rows that have one, with the numbers of their lines."""
    with open_rows(path, OPENAI, max_line=max_line) as source:
        for line, record in source.unread():
            found = _id(record)
            if isinstance(found, str):
                yield line, found


def _id(record: bytes) -> object:
    plain = _PLAIN.search(record) if record.count(_KEY) == 1 else None
    fields = parse_object(b'{"custom_id":' + plain[1] + b"}" if plain else record)
    return fields.get("custom_id") if isinstance(fields, dict) else None


def _mark(found: str) -> int:
    digest = hashlib.blake2b(found.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
