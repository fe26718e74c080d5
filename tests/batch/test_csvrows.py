"""Tables: what `csv` writes is read back, and a broken row ends where it ends."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from rwkv_cli.batch.csvrows import table_rows
from rwkv_cli.batch.reading import open_rows
from rwkv_cli.batch.row import Row
from rwkv_cli.batch.splitting import Splitter
from rwkv_cli.errors import RefusedError


def read(folder: Path, text: str, kind: str | None = "csv", **how: int) -> list[Row]:
    path = folder / "table"
    path.write_bytes(text.encode())
    with open_rows(path, kind, **how) as source:
        rows = list(source)
        survey = source.survey()
    assert survey is not None
    assert survey.rows == len(rows)
    return rows


def codes(rows: list[Row]) -> list[str | None]:
    return [row.error.code if row.error else None for row in rows]


@pytest.mark.parametrize(
    ("kind", "mark"), [("csv", ","), ("csv", ";"), ("csv", "\t"), ("tsv", "\t")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_is_written_is_read(
    kind: str, mark: str, end: str, tmp_path: Path, tries: int
) -> None:
    rng = random.Random(1)
    letters = ["a", "é", '"', ",", ";", "\t", "\n", "\r\n", " ", "1", '""', '",']
    table = [
        ["".join(rng.choices(letters, k=rng.randrange(5))) for _ in range(3)]
        for _ in range(tries // 20)
    ]
    table = [cells for cells in table if any(cell.strip() for cell in cells)]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator=end)
    writer.writerows([["one", "two", "three"], *table])
    rows = read(tmp_path, out.getvalue(), kind)
    assert [list(row.fields.values()) for row in rows] == table
    assert all(list(row.fields) == ["one", "two", "three"] for row in rows)


def test_rows_end_where_the_csv_module_ends_them(tries: int) -> None:
    rng = random.Random(2)
    for _ in range(tries):
        text = "".join(rng.choices(["a", ",", '"', "\n"], [3, 3, 4, 2], k=rng.randrange(24)))
        lines = Splitter([text.encode()], b"\n", 1000)
        cut = [bytes(row).decode() for row in table_rows(lines, b",", 1000)]  # type: ignore[arg-type]
        cells = [next(csv.reader([row])) for row in cut if row]
        expected = [row for row in csv.reader(io.StringIO(text)) if row]
        assert len(cells) == len(expected), text
        assert cells[:-1] == expected[:-1], text  # the last may lack an end, here and there


def test_rows_that_do_not_fit_the_header_are_errors(tmp_path: Path) -> None:
    rows = read(tmp_path, 'a,b\n1,2\n1\n1,2,3\n"1"x,2\n1,\0\n"",\n1,2\n')
    assert codes(rows) == [None, "bad_csv", "bad_csv", "bad_csv", "bad_csv", None, None]
    assert [row.error.message for row in rows[1:3] if row.error] == [
        "it has 1 cell, where the first row names 2",
        "it has 3 cells, where the first row names 2",
    ]
    assert rows[5].fields == {"a": "", "b": ""}


def test_a_cell_that_is_never_closed_takes_the_rest_and_is_one_error(tmp_path: Path) -> None:
    assert codes(read(tmp_path, 'a,b\n1,2\n3,"4\n5,6\n7,8\n')) == [None, "bad_csv"]
    many = 'a,b\n1,2\n3,"4\n' + "5,6\n" * 1000
    assert codes(read(tmp_path, many, max_line=1000)) == [None, "too_long"]


def test_after_a_cell_that_is_too_long_the_next_row_is_read(tmp_path: Path) -> None:
    for cell in (
        "x" * 5000,
        "x,\n" * 2000,
        '""' * 3000,
        'x""\n' * 1500 + "y" * 1500,
        "x" * 600 + "\n" + "y" * 600,
    ):
        rows = read(tmp_path, f'a,b\n1,2\n3,"{cell}"\n5,6\n', max_line=1000)
        assert codes(rows) == [None, "too_long", None], cell[:8]


def test_a_table_may_have_one_column_and_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "prompt\nHello\n") == [Row(0, {"prompt": "Hello"})]
    assert read(tmp_path, "prompt") == read(tmp_path, "") == read(tmp_path, "\n\n") == []


def test_a_first_row_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="longer than a row may be"):
        read(tmp_path, "a" * 100 + "\n1\n", max_line=99)


def test_names_of_columns_lose_their_blanks(tmp_path: Path) -> None:
    assert read(tmp_path, "id, First Name\n1,Ann\n")[0].fields == {"id": "1", "First Name": "Ann"}
