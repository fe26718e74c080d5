"""The rows of an input of any length and any of five kinds, one after the other, in constant
memory: what cannot be read is a row with an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rwkv_cli.batch.blocks import Blocks
from rwkv_cli.batch.csvrows import Table, table_rows
from rwkv_cli.batch.jsonline import parse_object
from rwkv_cli.batch.kinds import CSV, LINES, LOOK, TSV, kind_of, refuse_foreign
from rwkv_cli.batch.row import Row, RowError
from rwkv_cli.batch.splitting import BOM, Splitter, TooLong
from rwkv_cli.errors import RefusedError, UsageError

MAX_LINE = 16 << 20
STDIN = 0

Wanted = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Survey:
    """What a pass over a whole file tells.

    Attributes:
        rows: How many there are.
        size: Bytes.
        digest: Their SHA-256, in hexadecimal.
    """

    rows: int
    size: int
    digest: str


class RowSource:
    """The rows of an input; iterate over it once.

    Args:
        blocks: Its bytes.
        kind: One of `kinds.KINDS`; None tells it by how the input begins.
        suffix: Of the file's name.
        null: Whether rows end in a NUL byte.
        max_line: Bytes of the longest row; a longer one is an error.

    Attributes:
        kind: What kind of rows they are.
        columns: The names of the cells of a table; empty for other kinds.

    Raises:
        UsageError: It is JSON, but not one object a line.
        RefusedError: It is no text, or a table without names.
        StorageError: It cannot be read.
    """

    def __init__(
        self, blocks: Blocks, kind: str | None, suffix: str, *, null: bool, max_line: int
    ) -> None:
        self._blocks, self._null, self._limit = blocks, null, max_line
        rest = iter(blocks)
        head, self.kind = _begin(rest, kind, suffix, blocks.name)
        self._splitter = self._splits(itertools.chain([head] if head else [], rest))
        self._lines = iter(self._splitter)
        self._survey: Survey | None = None
        self._table: Table | None = None
        if self.kind in (CSV, TSV):
            marks = b"," if self.kind == CSV else b"\t"
            header = next(table_rows(self._lines, marks, max_line), None)
            self._table = self._named(header) if header is not None else None
        self.columns = self._table.columns if self._table else ()

    def __iter__(self) -> Iterator[Row]:
        """Give all rows."""
        return self.rows()

    def rows(self, want: Wanted | None = None) -> Iterator[Row]:
        """Give the rows, each with its place among all of them.

        Args:
            want: Asked once for each place, in order; a row that is not wanted is passed over
                unread. When it is asked, `digest_so_far` takes in the row it is asked about.

        Raises:
            StorageError: The input cannot be read.
            RefusedError: It is not what the survey found; what was added behind that does not
                count.
        """
        for index, record in enumerate(self._records(self._lines)):
            if self._blocks.interrupted:
                return
            if want is None or want(index):
                found = self._parse(record)
                if isinstance(found, RowError):
                    yield Row(index, error=found)
                else:
                    yield Row(index, found)
        if self._survey and not self._blocks.interrupted:
            self._refuse_changed(self._survey)

    def unread(self) -> Iterator[tuple[int, bytes]]:
        """Give all rows as they stand, but for those that are too long, each with the number of
        the line that it ends in, from 1.
        """
        for record in self._records(self._lines):
            if isinstance(record, bytes):
                yield self._splitter.line, record

    def survey(self) -> Survey | None:
        """Count the rows of a file in a pass of its own; None where there can be only one pass.
        There are no others from then on, even if the file grows.
        """
        if not self._blocks.regular:
            return None
        splitter = self._splits(self._blocks.again())
        count = sum(1 for _ in self._records(iter(splitter)))
        if self._table:
            count -= 1
        self._survey = Survey(count, splitter.offset, splitter.digest())
        self._blocks.size = self._survey.size
        return self._survey

    def _refuse_changed(self, survey: Survey) -> None:
        if self.digest_so_far() != survey.digest:
            raise RefusedError(
                f"{self._blocks.name} was changed while it was read",
                hint="--restart begins again with what it is now; leave it alone meanwhile",
            )

    @property
    def bytes_read(self) -> int:
        """Bytes up to the end of the row given last; all of them when there are no more rows."""
        return self._splitter.offset

    def digest_so_far(self) -> str:
        """Give the SHA-256 of these bytes, in hexadecimal."""
        return self._splitter.digest()

    def interrupt(self) -> None:
        """End before the next row, even while a pipe is waited for; safe to call from a signal
        handler.
        """
        self._blocks.interrupt()

    def close(self) -> None:
        """Let go of the file."""
        self._blocks.close()

    def __enter__(self) -> RowSource:
        """Let go of the file at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _splits(self, blocks: Iterator[bytes]) -> Splitter:
        return Splitter(blocks, b"\0" if self._null else b"\n", self._limit)

    def _named(self, header: bytes | TooLong) -> Table:
        return Table(header, self.kind, self._blocks.name, self._limit)

    def _records(self, lines: Iterator[bytes | TooLong]) -> Iterator[bytes | TooLong]:
        """Give what makes a row each."""
        if self._null:
            return lines
        if self._table:
            return table_rows(lines, self._table.delimiter.encode(), self._limit)
        return filter(_is_row, lines)

    def _parse(self, record: bytes | TooLong) -> Mapping[str, Any] | RowError:
        if isinstance(record, TooLong):
            return RowError("too_long", f"it is longer than {self._limit:,} bytes")
        if self._table:
            return self._table.parse(record)
        if self.kind != LINES:
            return parse_object(record)
        if not self._null:
            record = record.removesuffix(b"\r")
        try:
            return {"prompt": record.decode()}
        except UnicodeDecodeError as error:
            return RowError("bad_utf8", f"invalid UTF-8 at byte {error.start + 1}")


def open_rows(
    where: Path | str | int,
    kind: str | None = None,
    *,
    null: bool = False,
    max_line: int = MAX_LINE,
) -> RowSource:
    """Open an input.

    Args:
        where: A path, "-" for stdin, or a descriptor.
        kind: "jsonl", "openai", "csv", "tsv" or "lines"; None tells it by how the input begins.
        null: Rows are prompts that end in a NUL byte; all else is part of them, and an empty one
            is a row.
        max_line: Bytes of the longest row; a longer one is an error.

    Raises:
        NotFoundError: There is no such file.
        UsageError: NUL bytes separate other things than prompts, or it is JSON, but not one
            object a line.
        RefusedError: It is a folder, no text, or a table without names.
        StorageError: It cannot be read.
    """
    if null and kind not in (None, LINES):
        raise UsageError(f"NUL bytes separate prompts, not rows of {kind}")
    if str(where) == "-":
        where = STDIN
    blocks = Blocks(where if isinstance(where, int) else Path(where))
    suffix = "" if isinstance(where, int) else Path(where).suffix
    try:
        return RowSource(blocks, LINES if null else kind, suffix, null=null, max_line=max_line)
    except BaseException:
        blocks.close()
        raise


def _begin(blocks: Iterator[bytes], kind: str | None, suffix: str, name: str) -> tuple[bytes, str]:
    """Read as much of an input as tells its kind: that, and the kind."""
    head, ended, found = bytearray(), False, kind
    while (found is None or len(head) < len(BOM) + 1) and not ended:
        block = next(blocks, b"")
        head += block
        ended = not block
        if found is None and (ended or b"\n" in block or len(head) >= LOOK):
            found = kind_of(bytes(head).removeprefix(BOM), suffix, ended=ended)
    assert found is not None
    refuse_foreign(head, name)
    return bytes(head), found


def _is_row(line: bytes | TooLong) -> bool:
    """Whether a line is more than white space."""
    return isinstance(line, TooLong) or not (line.isspace() or not line)
