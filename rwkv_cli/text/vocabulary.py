"""Reads a World vocabulary file into the bytes of each id; knows nothing of encoding.

The file has a line for each token: its id, its text as a Python literal, the number of its bytes.
The literal is a string (encoded as UTF-8) or a bytes object. Nothing is evaluated.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path

from rwkv_cli.errors import NotFoundError, RefusedError, StorageError

_MAX_BYTES = 8 << 20
_MAX_ID = 1 << 20

# rwkv_vocab_v20230424.txt with LF line ends: 65,529 tokens, ids in order, sorted by length. Its
# checks are done once and for all, in the tests; reading it without them takes 25 ms instead of 90.
WORLD_FILE_SHA256 = "e6dee3d4e31b4d5c40ac99508ac6c701ceef4bed681bf2167ce9a908552bca89"

_LITERAL = re.compile(
    rb"""(?P<kind>b?)(?P<quote>['"])(?P<body>(?:[^\\'"]|(?!(?P=quote))['"]|"""
    rb"""\\(?:[\\'"abfnrtv]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}))*)(?P=quote)"""
)


def read_vocabulary(path: Path) -> list[bytes]:
    """Bytes of each id from 0 on; empty where the file has no such id.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: A line cannot be read, contradicts itself or repeats another; or some byte has
            no token.
    """
    return parse_vocabulary(vocabulary_file(path), path)


def vocabulary_file(path: Path) -> bytes:
    """The text of a vocabulary file, its line ends made LF.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is too large to be a vocabulary.
        StorageError: It cannot be read.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RefusedError(f"{path} is no vocabulary: larger than {_MAX_BYTES >> 20} MiB")
        return path.read_bytes().replace(b"\r\n", b"\n")
    except FileNotFoundError:
        raise NotFoundError(f"no vocabulary file at {path}") from None
    except OSError as error:
        raise StorageError(f"{path} could not be read: {error.strerror}") from error


def parse_vocabulary(data: bytes, path: Path) -> list[bytes]:
    """Bytes of each id from 0 on, out of the text of a vocabulary file; `path` is its name.

    Raises:
        RefusedError: As `read_vocabulary`.
    """
    if hashlib.sha256(data).hexdigest() == WORLD_FILE_SHA256:
        return _trusted_table(data)
    return _checked_table(data, path)


def _trusted_table(data: bytes) -> list[bytes]:
    """Cut the tokens out of the known file in runs of lines with equally many digits."""
    lines = data.split(b"\n")
    lines.pop()
    borders = {0, 9, 99, 999, 9999, len(lines)}
    borders.update(bisect_left(lines, length, key=_length_column) for length in (10, 100))
    table = [b""]
    for start, stop in pairwise(sorted(borders)):
        head = len(str(start + 1)) + 2
        tail = len(str(_length_column(lines[start]))) + 2
        table += [line[head:-tail] for line in lines[start:stop]]
    for token, literal in _escaped_literals(data):
        table[token] = _literal_bytes(literal)
    return table


def _length_column(line: bytes) -> int:
    return int(line[line.rindex(b" ") :])


def _escaped_literals(data: bytes) -> list[tuple[int, bytes]]:
    """Id and literal of every line that has a backslash; all bytes literals have one."""
    found = []
    position = data.find(b"\\")
    while position >= 0:
        stop = data.index(b"\n", position)
        line = data[data.rfind(b"\n", 0, position) + 1 : stop]
        token, _, rest = line.partition(b" ")
        found.append((int(token), rest.rpartition(b" ")[0]))
        position = data.find(b"\\", stop)
    return found


def _checked_table(data: bytes, path: Path) -> list[bytes]:
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line:
            continue
        token, text = _checked_line(line, f"{path}, line {number}")
        if token in tokens:
            raise RefusedError(f"{path}, line {number}: id {token} occurs twice")
        tokens[token] = text
    known = set(tokens.values())
    if len(known) < len(tokens):
        raise RefusedError(f"{path} gives two ids the same bytes")
    if missing := [byte for byte in range(256) if bytes([byte]) not in known]:
        raise RefusedError(f"{path} has no token for the single byte 0x{missing[0]:02x}")
    return [tokens.get(token, b"") for token in range(max(tokens) + 1)]


def _checked_line(line: bytes, where: str) -> tuple[int, bytes]:
    head, _, rest = line.partition(b" ")
    literal, _, tail = rest.rpartition(b" ")
    if not (head.isdigit() and tail.isdigit() and len(head) <= 7 and len(tail) <= 7):
        raise RefusedError(f"{where}: not an id, a quoted text and a length")
    token, length = int(head), int(tail)
    if not 0 < token <= _MAX_ID:
        raise RefusedError(f"{where}: id {token} is outside 1..{_MAX_ID} (0 means end of text)")
    try:
        text = _literal_bytes(literal)
    except ValueError as error:
        raise RefusedError(f"{where}: the quoted text cannot be read ({error})") from error
    if len(text) != length or not text:
        raise RefusedError(f"{where}: the text has {len(text)} bytes, the line says {length}")
    return token, text


def _literal_bytes(literal: bytes) -> bytes:
    """Value of a Python string or bytes literal as bytes.

    Raises:
        ValueError: It is neither, or has an escape that `repr` never writes.
    """
    match = _LITERAL.fullmatch(literal)
    if match is None:
        raise ValueError("no string or bytes literal")
    body = match["body"]
    if b"\\" not in body and not match["kind"]:
        return body
    # Characters beyond Latin-1 would not survive unicode_escape, so they become escapes first.
    text = body.decode("utf-8").encode("latin-1", "backslashreplace").decode("unicode_escape")
    return text.encode("latin-1" if match["kind"] else "utf-8")
