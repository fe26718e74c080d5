"""Rows of an input: one for each that is there, whatever it holds."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rwkv_cli.batch.jsonline import parse_object
from rwkv_cli.batch.reading import RowSource, open_rows
from rwkv_cli.batch.row import Row, RowError
from rwkv_cli.errors import NotFoundError, RefusedError, UsageError

LIMIT = 250_000  # bytes of the longest line, where a test has no other
GOOD = {"prompt": "hello"}
MEGABYTE = 1 << 20

# A line, and what is read: fields, or the code of an error.
POISON: list[tuple[bytes, dict[str, object] | str]] = [
    (b'\xef\xbb\xbf{"prompt":"hello"}', GOOD),  # at the beginning of the file alone
    (b'{"prompt":"hello"}\r', GOOD),
    (b' \t{"prompt":"hello"} ', GOOD),
    (b'{"prompt":"\xff\xfe"}', "bad_utf8"),
    (b'{"prompt":"\xed\xa0\x80"}', "bad_utf8"),
    (b'{"prompt":"\\ud800"}', "bad_utf8"),
    (b'{"prompt":"x","\\uDFFF":1}', "bad_utf8"),
    (b'{"a":[{"b":"\\ud83d \\ude00"}]}', "bad_utf8"),
    (b'{"prompt":"\\ud83d\\ude00"}', {"prompt": "\U0001f600"}),
    (b'{"prompt":"\\\\ud800"}', {"prompt": "\\ud800"}),
    (b'{"prompt":"a\x00b"}', "bad_json"),
    (b"\x00", "bad_json"),
    (b'{"prompt":"a\\u0000b"}', {"prompt": "a\0b"}),
    (b'{"prompt":"a","prompt":"b"}', "bad_json"),
    (b'{"a":{"b":1,"b":1}}', "bad_json"),
    (b'{"a":NaN}', "bad_json"),
    (b'{"a":-Infinity}', "bad_json"),
    (b'{"a":1e999}', "bad_json"),
    (b'{"a":' + b"7" * 5000 + b"}", "bad_json"),
    (b'{"a":-' + b"7" * 300 + b"}", {"a": -int("7" * 300)}),
    (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad_json"),
    (b'{"a":' * 40_000, "bad_json"),
    (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", "bad_json"),
    (b'{"a":' + b"[" * 99 + b"]" * 99 + b"}", {"a": json.loads("[" * 99 + "]" * 99)}),
    (b'{"a":"' + rb"\\\"[" * 200 + b'"}', {"a": '\\"[' * 200}),
    (b'{"a":[' + b'{"b":[]},' * 200 + b"1]}", {"a": [*({"b": []},) * 200, 1]}),
    (b'{"a":"\\\\",' + b'"x":[' * 200, "bad_json"),
    (b"[1]", "bad_json"),
    (b'"text"', "bad_json"),
    (b"null", "bad_json"),
    (b'{"prompt":"hello"', "bad_json"),
    (b'{"prompt":"hello"}{"prompt":"hello"}', "bad_json"),
    (b'\xef\xbb\xbf{"prompt":"hello"}', "bad_json"),
    (b'{"prompt":"' + b"x" * LIMIT + b'"}', "too_long"),
    (b"[" * 2 * LIMIT, "too_long"),
    (b'{"prompt":""}', {"prompt": ""}),
    (b'{"prompt":"a\\n\\nUser: b"}', {"prompt": "a\n\nUser: b"}),
    (b"{}", {}),
    (b'{"prompt":"hello"}', GOOD),  # with no line end
]
DEEP = [pair for pair in POISON if pair[0].count(b"[") > 90 or pair[0].count(b"{") > 90]
BLANK = [b"", b"\r", b"  ", b"\t\r"]


class Pieces:
    """An input that comes in given pieces."""

    name, regular, interrupted = "pieces", False, False

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)

    def close(self) -> None:
        pass


def source(pieces: list[bytes], kind: str | None, null: bool = False) -> RowSource:
    return RowSource(Pieces(pieces), kind, "", null=null, max_line=4096)  # type: ignore[arg-type]


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut bytes into pieces at random places."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 9)))
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def peak(work: Callable[[], object]) -> int:
    """Bytes of memory that something needs."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def told(rows: list[Row]) -> list[dict[str, object] | str]:
    return [row.error.code if row.error else dict(row.fields) for row in rows]


def test_every_poisoned_line_is_one_row_and_what_is_wrong_is_told(tmp_path: Path) -> None:
    rng = random.Random(1)
    data = b""
    for line, _ in POISON[:-1]:
        data += line + b"\n" + (rng.choice(BLANK) + b"\n") * rng.randrange(3)
    path = write(tmp_path, "poison.jsonl", data + POISON[-1][0])
    with open_rows(path, max_line=LIMIT) as rows:
        found = list(rows)
        survey = rows.survey()
    assert told(found) == [meaning for _, meaning in POISON]
    assert [row.index for row in found] == list(range(len(POISON)))
    assert survey is not None
    assert survey.rows == len(POISON)


@pytest.mark.parametrize(("line", "meaning"), DEEP, ids=range(len(DEEP)))
def test_deep_nesting_is_refused_with_little_memory(
    line: bytes, meaning: dict[str, object] | str, tmp_path: Path
) -> None:
    path = write(tmp_path, "deep.jsonl", line)
    found: list[Row] = []
    used = peak(lambda: found.extend(open_rows(path, max_line=LIMIT)))
    assert told(found) == [meaning]
    assert used < 16 * MEGABYTE


def test_every_error_says_what_is_wrong_in_one_short_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "poison.jsonl", b"\n".join(line for line, _ in POISON))
    for row in open_rows(path, max_line=LIMIT):
        if row.error:
            assert 5 < len(row.error.message) < 200
            row.error.message.encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a":"\xff"}', "invalid UTF-8 at byte 7"),
        (b'{"a":"\\ud800"}', "\\ud800 is half of a surrogate pair"),
        (b'{"a" 1}', "it is no JSON: expecting ':' delimiter, at character 6"),
        (b"[1]", "it is a list, not an object"),
        (b'{"a":1,"a":2}', "the key 'a' stands twice"),
        (b'{"a":-Infinity}', "-Infinity is no number of JSON"),
        (b'{"a":1e400}', "'1e400' is too large for a number"),
        (b'{"a":' + b"[" * 101, "nested deeper than 100 levels"),
        (b"x" * 4097, "it is longer than 4,096 bytes"),
        (b'{"a":' + b"1" * 4001 + b"}", "a number of 4,001 digits"),
    ],
)
def test_messages_say_where_and_what(line: bytes, message: str) -> None:
    (row,) = source([line], "jsonl")
    assert row.error is not None
    assert row.error.message == message


def test_what_would_take_much_memory_is_refused_before_it_is_parsed() -> None:
    for line in (b'{"a":[' + b"1," * 500_000, b"{" * 101 + b'"' * 1_000_001):
        found: list[object] = []
        used = peak(lambda line=line, found=found: found.append(parse_object(line)))  # type: ignore[misc]
        assert found == [RowError("bad_json", "more than 500,000 values")]
        assert used < 8 * MEGABYTE


@pytest.mark.parametrize("kind", ["lines", "csv"])
@pytest.mark.parametrize("size", [1, 7, 4096, 10_000])
def test_the_longest_line_is_as_long_as_it_may_be(kind: str, size: int) -> None:
    data = b"head\n" + b"a" * 4096 + b"\n" + b"b" * 4097 + b"\n" + b"c" * 4096
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if size == 1:
        pieces = [data[:4], *pieces[4:]]
    codes = [row.error and row.error.code for row in source(pieces, kind)]
    assert codes == [None, None, "too_long", None][kind == "csv" :]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_line_of_64_megabytes_is_passed_over_in_constant_memory(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write(b'{"a":1}\n')
        file.seek(64 * MEGABYTE)
        file.write(b'\n{"a":2}')
    found: list[Row] = []

    def read() -> None:
        with open_rows(path, kind) as rows:
            assert rows.survey()
            found.extend(rows)

    assert peak(read) < 20 * MEGABYTE
    codes = [row.error and row.error.code for row in found]
    assert codes == [None, "too_long", None][kind == "csv" :]


def test_however_the_input_comes_in_pieces_the_rows_are_the_same(tries: int) -> None:
    rng = random.Random(2)
    texts = {
        None: b"\xef\xbb\xbf" + b"\n".join(line for line, _ in POISON[1:]),
        "lines": "\ufeffa\r\n\n  b \r\nc\rd\0\ne".encode() + b"\xff\n" + b"f" * 5000 + b"\nf",
        "csv": b'\xef\xbb\xbfa,b\r\n\n1,"x ""y""\n\n z"\r\n2,3,4\n"' + b"u" * 5000 + b'",1\n5,"6',
    }
    for kind, data in texts.items():
        whole = list(source([data], kind))
        for _ in range(tries // 50):
            assert list(source(cut(data, rng), kind)) == whole
        assert list(source([bytes([byte]) for byte in data[:60]], kind))


def test_the_digest_is_that_of_the_bytes_up_to_the_last_row(tries: int) -> None:
    rng = random.Random(3)
    data = b"\xef\xbb\xbfone\n\n\r\ntwo\nthree\r\n  \nfour"
    ends = [data.index(word) + len(word) + 1 for word in (b"one", b"two", b"three\r", b"four")]
    for _ in range(tries // 50):
        rows = source(cut(data, rng), "lines")
        for row in rows:
            so_far = data[: ends[row.index]]
            assert rows.digest_so_far() == hashlib.sha256(so_far).hexdigest()
            assert rows.bytes_read == len(so_far)
        assert rows.bytes_read == len(data)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \n"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "lines"])
def test_a_survey_counts_what_is_read_and_digests_the_file(
    kind: str, end: bytes, tmp_path: Path
) -> None:
    data = b'a,b\n1,"2\n3"\n\n4,5\n{"x":1}' + end
    path = write(tmp_path, "table", data)
    with open_rows(path, kind) as rows:
        first = next(iter(rows))
        survey = rows.survey()
        assert survey is not None
        assert survey.digest == hashlib.sha256(data).hexdigest()
        assert survey.size == len(data)
        others = list(rows)
        assert survey.rows == len([first, *others])
        assert rows.digest_so_far() == survey.digest


def test_what_is_not_wanted_is_counted_and_not_read() -> None:
    rows = source([b'{"a":0}\nnonsense\n{"a":2}\n'], "jsonl")
    asked: list[tuple[int, int]] = []

    def want(index: int) -> bool:
        asked.append((index, rows.bytes_read))
        return index == 2

    assert list(rows.rows(want)) == [Row(2, {"a": 2})]
    assert asked == [(0, 8), (1, 17), (2, 25)]


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a", b'{"prompt":"x"}\n', "jsonl"),
        ("a", b'\xef\xbb\xbf\r\n\n {"prompt":"x"}', "jsonl"),
        ("a", b'{"custom_id":"1","body":{}}\n', "openai"),
        ("a", b'{"custom_id":"1"}\n', "jsonl"),
        ("a", b'{"broken\n{"custom_id":"1","body":{}}\n', "openai"),
        ("a", b'{"broken\n', "jsonl"),
        ("a", b'\xff\xff\n{"prompt":"x"}\n', "jsonl"),
        ("a", b"Hello, world\n", "lines"),
        ("a", b"", "lines"),
        ("a.jsonl", b"", "jsonl"),
        ("a.jsonl", b'nonsense\n[1]\n{"custom_id":"1","body":{}}', "openai"),
        ("a.jsonl", b"[\n", "jsonl"),
        ("a", b'{"custom_id":"' + b"x" * 2 * MEGABYTE, "jsonl"),
        ("a", b'\n\n{"prompt":"' + b"x" * 2 * MEGABYTE, "jsonl"),
        ("a.txt", b"\n" + b"{" * 2 * MEGABYTE, "lines"),
        ("a.json", b"", "jsonl"),
        ("a.ndjson", b"x" * 2 * MEGABYTE, "jsonl"),
        ("a", b'{"prompt":"' + b"x" * 2 * MEGABYTE, "jsonl"),
        ("a", b'{"custom_id":"1","body":{"prompt":"' + b"x" * 2 * MEGABYTE, "openai"),
        ("a.txt", b"{broken\n", "lines"),
        ("a.txt", b'{"prompt":"x"}\n', "jsonl"),
        ("a.txt", b"\xff\n{}\n", "jsonl"),
        ("a.csv", b"a,b\n", "csv"),
        ("a.CSV", b'{"a",b\n', "csv"),
        ("a.tsv", b"a\tb\n", "tsv"),
    ],
)
def test_the_kind_is_told_by_the_first_whole_line_and_by_the_suffix(
    name: str, data: bytes, kind: str, tmp_path: Path
) -> None:
    assert open_rows(write(tmp_path, name, data)).kind == kind


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.json", b'[\n{"a":1}\n]', "one object a line"),
        ("a.json", b'[{"a":1},{"a":2}]', "one object a line"),
        ("a", b'{\n"a":1\n}', "one object a line"),
        ("a.jsonl", b"\x1f\x8b\x08\0", "compressed"),
        ("a.csv", b"PK\x03\x04", "spreadsheet"),
        ("a.jsonl", "{}".encode("utf-16"), "UTF-16"),
        ("a.csv", b"a,b,a\n", "'a'"),
        ("a.csv", b'a,"b\n', "first row"),
    ],
)
def test_what_holds_no_rows_is_refused_before_the_start(
    name: str, data: bytes, word: str, tmp_path: Path
) -> None:
    with pytest.raises((UsageError, RefusedError)) as raised:
        open_rows(write(tmp_path, name, data))
    assert word in raised.value.message


def test_a_missing_file_a_folder_and_a_contradiction_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_rows(tmp_path / "none.jsonl")
    with pytest.raises(RefusedError, match="folder"):
        open_rows(tmp_path)
    with pytest.raises(UsageError, match="csv"):
        open_rows(tmp_path / "a.csv", "csv", null=True)


def test_prompts_between_nul_bytes_hold_anything_else_and_may_be_empty() -> None:
    rows = list(source([b"\xef\xbb\xbfa\nb\r\n\0\0 \0{}\0c"], None, null=True))
    assert [row.fields["prompt"] for row in rows] == ["a\nb\r\n", "", " ", "{}", "c"]
    assert len(list(source([b"a\0b\0"], None, null=True))) == 2


def test_lines_keep_all_but_their_end() -> None:
    rows = list(source([b" a \r\n\rb\0c\r\r\n\xff\n"], "lines"))
    assert told(rows) == [{"prompt": " a "}, {"prompt": "\rb\0c\r"}, "bad_utf8"]


def test_a_pipe_gives_each_row_as_soon_as_it_is_whole() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"first\n")
    with open_rows(reader) as source:
        rows = iter(source)
        assert next(rows).fields == {"prompt": "first"}
        os.write(writer, b"second\nthi")
        assert next(rows).fields == {"prompt": "second"}
        assert source.survey() is None
        os.close(writer)
        assert [row.fields for row in rows] == [{"prompt": "thi"}]
    os.close(reader)


def test_an_interrupt_ends_the_wait_for_a_pipe_and_half_a_row_is_none() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"first\nsec")
    with open_rows(reader) as source:
        rows = iter(source)
        assert next(rows).fields == {"prompt": "first"}
        timer = threading.Timer(0.05, source.interrupt)
        timer.start()
        assert list(rows) == []
        timer.join()
    os.close(reader)
    os.close(writer)


def test_whatever_a_line_holds_it_gives_one_row_that_can_be_written(tries: int) -> None:
    rng = random.Random(4)
    seeds = [line for line, _ in POISON if len(line) < 400]
    lines = [mutant(rng.choice(seeds), rng) for _ in range(tries)]
    lines = [line for line in lines if line.strip(b" \t\r\x0b\x0c")]
    rows = list(source(cut(b"\n" + b"\n".join(lines), rng), "jsonl"))
    assert [row.index for row in rows] == list(range(len(lines)))
    for row in rows:
        assert bool(row.error) != bool(row.fields) or row.fields == {}
        text = json.dumps(row.fields, allow_nan=False, ensure_ascii=False)
        assert json.loads(text.encode()) == row.fields


def mutant(line: bytes, rng: random.Random) -> bytes:
    """Change some bytes of a line."""
    changed = bytearray(line)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(changed) + 1)
        end = at + rng.randrange(3)
        changed[at:end] = rng.choice(
            [b"", b'"', b"\\", b"{", b"}", b",", b"\xf0\x9f", b"\0", b"1e9"]
        )
    return bytes(changed).replace(b"\n", b"")
