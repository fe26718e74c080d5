"""Rows of a table in text: cells between commas or tabs, the first row naming them (RFC 4180)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator

from rwkv_cli.batch.row import RowError
from rwkv_cli.batch.splitting import TooLong
from rwkv_cli.errors import RefusedError

_DELIMITERS = {"csv": ",;\t", "tsv": "\t"}  # what may stand between cells: what makes most of them

_SHORT = 1 << 14  # bytes of a line that a pattern may be tried on: it remembers every cell


class Table:
    """What the first row of a table says of the others.

    Args:
        header: That row.
        kind: "csv" or "tsv".
        name: Of the file.
        limit: Bytes of the longest row.

    Attributes:
        columns: The names of the cells, in order.
        delimiter: What stands between cells.

    Raises:
        RefusedError: It names no cells, or two alike.
    """

    def __init__(self, header: bytes | TooLong, kind: str, name: str, limit: int) -> None:
        csv.field_size_limit(max(limit, csv.field_size_limit()))
        marks = _DELIMITERS[kind]
        there = [mark for mark in marks if isinstance(header, bytes) and mark.encode() in header]
        ways = {mark: _cells(header, mark) for mark in there or marks[:1]}
        self.delimiter, cells = max(ways.items(), key=lambda way: len(_good(way[1])))
        if isinstance(cells, RowError):
            raise RefusedError(f"{name}: its first row, which names the columns: {cells.message}")
        self.columns = tuple(cell.strip() for cell in cells)
        twice = next((c for i, c in enumerate(self.columns) if c in self.columns[:i]), None)
        if twice is not None:
            raise RefusedError(
                f"{name}: two columns are called {twice[:60]!r}",
                hint="the first row of a table names its columns",
            )

    def parse(self, record: bytes | TooLong) -> dict[str, str] | RowError:
        """Read a row."""
        cells = _cells(record, self.delimiter)
        if isinstance(cells, RowError):
            return cells
        if len(cells) != len(self.columns):
            what = f"it has {_count(len(cells), 'cell')}, where the first row names"
            return RowError("bad_csv", f"{what} {len(self.columns)}")
        return dict(zip(self.columns, cells, strict=True))


def table_rows(
    lines: Iterable[bytes | TooLong], delimiter: bytes, limit: int
) -> Iterator[bytes | TooLong]:
    """Join the lines that lie in one quoted cell; what becomes longer than the limit is passed
    over to its end. Empty lines between rows are none.
    """
    mark = re.escape(delimiter)
    cell = b'(?:"[^"]*"|[^"' + mark + b"]*)"  # most are so simple
    simple = re.compile(cell + b"(?:" + mark + cell + b")*").fullmatch
    kept, long, inside = bytearray(), False, False
    for line in lines:
        if isinstance(line, TooLong):
            # Quotation marks stand in pairs but for those that open or close a cell.
            inside ^= bool(line.quotes % 2)
            long = True
        elif inside or line.strip(b" \r"):
            plain = not inside and len(line) <= _SHORT and simple(line)
            inside = not plain and open_cell(line, delimiter, inside=inside)
            if not inside and not kept and not long:  # a row on a line of its own
                yield line
                continue
            long = long or len(kept) + len(line) > limit
            kept += b"" if long else line + b"\n"
        else:
            continue
        if long:
            kept = bytearray()
        if not inside:
            yield TooLong() if long else bytes(kept[:-1])
            kept, long = bytearray(), False
    if inside:
        yield TooLong() if long else bytes(kept[:-1])


def open_cell(line: bytes, delimiter: bytes, *, inside: bool) -> bool:
    """Tell whether a quoted cell is open at the end of a line.

    Args:
        line: Without its end.
        delimiter: What stands between cells.
        inside: Whether one was open before it.
    """
    if b'"' not in line:
        return inside
    start = 0  # of a cell, or of what is left of the one that is open
    while True:
        if not inside and not line.startswith(b'"', start):
            close = start
        else:
            close = line.find(b'"', start if inside else start + 1)
            while close >= 0 and line.startswith(b'""', close):
                close = line.find(b'"', close + 2)
            if close < 0:
                return True
        inside = False
        start = line.find(delimiter, close) + 1
        if not start:
            return False


def _cells(record: bytes | TooLong, delimiter: str) -> list[str] | RowError:
    if isinstance(record, TooLong):
        return RowError("too_long", "it is longer than a row may be")
    try:
        text = record.decode()
        if "\0" in text:  # Python 3.10 refuses it, later ones do not
            return RowError("bad_csv", "it holds a NUL")
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        return RowError("bad_utf8", f"invalid UTF-8 at byte {error.start + 1}")
    except csv.Error as error:
        return RowError("bad_csv", f"it is no row of a table: {error}")


def _good(cells: list[str] | RowError) -> list[str]:
    return [] if isinstance(cells, RowError) else cells


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
