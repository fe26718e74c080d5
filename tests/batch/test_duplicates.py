"""Ids that stand twice are found before anything is generated."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path

import pytest

from rwkv_cli.batch import duplicates
from rwkv_cli.batch.duplicates import refuse_duplicates
from rwkv_cli.errors import UsageError


def write(folder: Path, *lines: bytes) -> Path:
    path = folder / "batch.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


def line(name: str, **body: object) -> bytes:
    return json.dumps({"custom_id": name, "body": body}).encode()


@pytest.mark.parametrize(
    "again",
    [
        b'{"custom_id":"b","body":{}}',
        b'{"body":{"metadata":{"custom_id":"x"}},"custom_id" : "b"}',
        b'{"custom\\u005fid":"b"}',
        b'{"custom_id":"\\u0062"}',
        b'{"body":{"prompt":"\\"custom_id\\": \\"z\\""},"custom_id":"b"}',
    ],
)
def test_two_equal_ids_are_refused_with_their_lines(again: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, line("a"), b"", line("b", prompt="x"), b"nonsense", line("c"), again)
    with pytest.raises(UsageError) as raised:
        refuse_duplicates(path)
    assert raised.value.message == "custom_id 'b' stands in line 3 and in line 6"


def test_ids_that_differ_are_none_wherever_they_stand(tmp_path: Path) -> None:
    inner = b'{"custom_id":"c","body":{"custom_id":"a"}}'
    broken = b'{"custom_id":"a"'  # its error bears no id
    refuse_duplicates(write(tmp_path, line("a"), line("A"), inner, b'{"custom_id":5}', b"{}"))
    refuse_duplicates(write(tmp_path, b'{"custom_id":5}', b'{"custom_id":5}', b"{}", b"{}"))
    refuse_duplicates(write(tmp_path))
    refuse_duplicates(write(tmp_path, line("a"), broken, b"\xff" + line("a")))


def test_ids_with_one_mark_are_compared_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_mark", lambda found: len(found))
    refuse_duplicates(write(tmp_path, line("a"), line("b"), line("cc")))
    with pytest.raises(UsageError, match="line 2 and in line 4"):
        refuse_duplicates(write(tmp_path, line("a"), line("b"), line("cc"), line("b")))


def test_memory_grows_by_a_few_bytes_for_each_row(tmp_path: Path) -> None:
    names = [f"request-{number}" for number in range(5_000)]
    random.Random(1).shuffle(names)
    path = write(tmp_path, *(line(name, prompt="x" * 100) for name in names))
    refuse_duplicates(path)  # imports what it needs
    tracemalloc.start()
    refuse_duplicates(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (2 << 20)
