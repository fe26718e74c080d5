"""What an output keeps, what it refuses, and how it goes on."""

from __future__ import annotations

import os
import resource
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from batch.outputs import (
    ROWS,
    add,
    expected,
    facts,
    fails,
    finish,
    line,
    mixed,
    stream_digest,
    stream_facts,
)

from rwkv_cli.batch import output as module
from rwkv_cli.batch import rowfile
from rwkv_cli.batch.manifest import InputFacts, load, manifest_path, save
from rwkv_cli.batch.output import Output
from rwkv_cli.errors import (
    RefusedError,
    StorageError,
    UsageError,
)

LAYOUTS = ("jsonl", "openai")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_that_come_in_any_order_end_in_theirs(path: Path, layout: str) -> None:
    with Output(path, facts(ROWS, layout=layout)) as output:
        add(output, mixed(), layout)
        output.finish()
    assert path.read_bytes() == expected(ROWS, layout=layout)
    assert {p.name for p in path.parent.iterdir()} == {"out.jsonl", "out.jsonl.run.json"}


def test_unordered_rows_stay_as_they_came(path: Path) -> None:
    order = mixed()
    with Output(path, facts(ROWS)) as output:
        add(output, order)
        output.finish(sort=False)
    assert path.read_bytes() == b"".join(map(line, order))
    assert Output(path, facts(ROWS)).complete


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_command_goes_on_and_writes_no_row_twice(path: Path, layout: str) -> None:
    order = mixed()
    for begin in range(0, ROWS, 10):
        with Output(path, facts(ROWS, layout=layout)) as output:
            assert [i for i in range(ROWS) if i in output.done] == sorted(order[:begin])
            assert len(output.failed) == sum(map(fails, order[:begin]))
            add(output, order[begin : begin + 10], layout)
    with Output(path, facts(ROWS, layout=layout)) as output:
        assert not output.complete
        output.finish()
    assert path.read_bytes() == expected(ROWS, layout=layout)


def test_a_row_is_one_write_of_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(bytes(data)) or real(fd, data))
    with Output(path, facts(ROWS)) as output:
        add(output, [3, 1])
    assert written == [line(3), line(1)]


def test_what_is_complete_says_so_and_nothing_is_copied(path: Path) -> None:
    finish(path)
    before = path.stat()
    with Output(path, facts(ROWS)) as output:
        assert output.complete
        assert len(output.done) == ROWS
        output.finish()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_rows_that_somebody_took_out_run_again(path: Path) -> None:
    finish(path)
    path.write_bytes(b"".join(map(line, range(1, ROWS))))
    with Output(path, facts(ROWS)) as output:
        assert not output.complete
        assert 0 not in output.done
        add(output, [0])
    with Output(path, facts(ROWS)) as output:
        assert not output.complete  # not in order yet, whatever the count says
        output.finish()
    assert path.read_bytes() == expected(ROWS)


def test_a_changed_run_is_refused_and_told(path: Path) -> None:
    finish(path)
    kept = path.read_bytes(), manifest_path(path).read_bytes()
    with pytest.raises(UsageError, match=r"was made with temperature 0\.7; now it is 1\.0") as info:
        Output(path, facts(ROWS, parameters={"temperature": 1.0, "stop": ["\n"]}))
    assert info.value.exit_code == 2
    assert "--restart" in str(info.value.hint)
    assert (path.read_bytes(), manifest_path(path).read_bytes()) == kept


def test_a_changed_run_may_begin_where_there_is_nothing_to_lose(path: Path) -> None:
    with Output(path, facts(ROWS)):
        pass
    with Output(path, facts(ROWS, model="b" * 64)) as output:
        assert output.manifest.model == "b" * 64


def test_a_restart_throws_the_rows_away(path: Path) -> None:
    finish(path)
    with Output(path, facts(3, model="b" * 64), restart=True) as output:
        assert (len(output.done), output.complete) == (0, False)
        add(output, [2, 0, 1])
        output.finish()
    assert path.read_bytes() == expected(3)


def test_the_base_seed_is_drawn_once(path: Path) -> None:
    with Output(path, facts(ROWS)) as output:
        seed = output.manifest.seed
        add(output, [0])
    assert seed is not None
    with Output(path, facts(ROWS)) as output:
        assert output.manifest.seed == seed
    with pytest.raises(UsageError, match="made with seed"):
        Output(path, facts(ROWS, seed=seed + 1))
    assert Output(path, facts(ROWS, seed=5), restart=True).manifest.seed == 5


@pytest.mark.parametrize("apart", [False, True])
def test_rows_that_failed_are_skipped_until_they_are_asked_for_again(
    path: Path, tmp_path: Path, apart: bool
) -> None:
    (tmp_path / "aside").mkdir()
    errors = tmp_path / "aside" / "bad.jsonl" if apart else None
    finish(path, errors=errors)
    if errors:
        assert errors.read_bytes() == expected(ROWS, failed=True)
        assert path.read_bytes() == expected(ROWS, failed=False)
    bad = [i for i in range(ROWS) if fails(i)]
    with Output(path, facts(ROWS), errors=errors) as output:
        assert (output.complete, len(output.failed)) == (True, len(bad))
    with Output(path, facts(ROWS), errors=errors, retry_errors=True) as output:
        assert (output.complete, len(output.failed)) == (False, 0)
        assert [i for i in range(ROWS) if i not in output.done] == bad
        assert path.read_bytes() == expected(ROWS, failed=False)
        add(output, bad[:2])
    with Output(path, facts(ROWS), errors=errors) as output:
        assert [i for i in range(ROWS) if i not in output.done] == bad[2:]
        add(output, reversed(bad[2:]))
        output.finish()
    if errors:
        assert errors.read_bytes() == expected(ROWS, failed=True)
    else:
        assert path.read_bytes() == expected(ROWS)


def test_the_place_of_failed_rows_is_part_of_the_run(path: Path, tmp_path: Path) -> None:
    finish(path, errors=tmp_path / "bad.jsonl")
    with pytest.raises(UsageError, match=r"made with errors bad\.jsonl; now it is none"):
        Output(path, facts(ROWS))
    other = tmp_path / "other.jsonl"
    with pytest.raises(UsageError, match="it is the output"):
        Output(path, facts(ROWS), errors=path)
    finish(other)
    with pytest.raises(RefusedError, match="rows of another run"):
        Output(path, facts(ROWS), errors=other, restart=True)
    assert other.read_bytes() == expected(ROWS)


@pytest.fixture
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_leaves_whole_lines_and_the_run_goes_on(path: Path) -> None:
    order = mixed()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    output = Output(path, facts(ROWS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    with output, pytest.raises(StorageError, match="cannot write") as info:
        add(output, order)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert info.value.exit_code == 5
    left = path.read_bytes()
    assert 0 < len(left) <= 1500
    assert left == b"".join(map(line, order))[: len(left)]
    assert left.endswith(b"\n")
    with Output(path, facts(ROWS)) as output:
        add(output, [i for i in order if i not in output.done])
        output.finish()
    assert path.read_bytes() == expected(ROWS)


@pytest.mark.usefixtures("small_files")
def test_a_disk_too_full_to_sort_loses_nothing(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Output(path, facts(ROWS)) as output:
        add(output, mixed())
        kept = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
        with pytest.raises(StorageError) as info:
            output.finish()
        assert "second copy" in str(info.value.hint)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == kept
    assert len(list(path.parent.iterdir())) == 2
    with Output(path, facts(ROWS)) as output:
        output.finish()
    assert path.read_bytes() == expected(ROWS)


def test_many_rows_take_little_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 10_000
    monkeypatch.setattr(rowfile, "_BLOCK", 1 << 16)
    save(manifest_path(path), facts(rows, seed=1))
    path.write_bytes(b"".join(map(line, mixed(rows))))
    tracemalloc.start()
    with Output(path, facts(rows)) as output:
        assert len(output.done) == rows
        opening = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        output.finish()
        sorting = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 1_000_000
    assert opening < 400_000
    assert sorting < 400_000 + 12 * rows
    assert path.read_bytes() == expected(rows)


def test_sorting_keeps_who_may_read(path: Path) -> None:
    with Output(path, facts(ROWS)) as output:
        path.chmod(0o600)
        add(output, mixed())
        output.finish()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_larger_than_the_memory_for_it_is_sorted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowfile, "_BLOCK", 64)  # shorter than a line
    with Output(path, facts(ROWS)) as output:
        add(output, mixed(), size=700)
        output.finish()
    assert path.read_bytes() == b"".join(line(i, size=700) for i in range(ROWS))
    assert Output(path, facts(ROWS)).complete


def test_what_killed_runs_were_writing_is_cleared_away(path: Path) -> None:
    litter = [
        path.parent / f".{name}.77-{'0' * 12}.tmp" for name in (path.name, f"{path.name}.run.json")
    ]
    others = path.parent / f".other.jsonl.77-{'0' * 12}.tmp"
    for file in (*litter, others):
        file.write_bytes(b"half")
    finish(path)
    assert [file.exists() for file in (*litter, others)] == [False, False, True]


def _feed(output: Output, rows: range) -> None:
    for index in rows:
        output.reached(index + 1, lambda rows=index + 1: stream_digest(rows))  # type: ignore[misc]
        if index not in output.done:
            output.add(index, line(index), failed=fails(index))


def test_a_stream_goes_on_where_it_was_left(path: Path) -> None:
    with Output(path, stream_facts()) as output:
        _feed(output, range(10))
    assert path.read_bytes() == expected(10)
    with Output(path, stream_facts()) as output:
        assert (len(output.done), output.manifest.input.rows) == (10, 10)
        _feed(output, range(25))
        output.finish()
    assert path.read_bytes() == expected(25)
    facts_now = load(manifest_path(path))
    assert facts_now is not None
    assert facts_now.input == InputFacts("jsonl", 25, stream_digest(25), stream=True)
    assert facts_now.complete == 25


def test_no_row_of_a_stream_is_written_before_the_manifest_knows_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PERIOD", 1e9)
    with Output(path, stream_facts()) as output:
        _feed(output, range(10))
        assert path.read_bytes() == b""
        output.sync()
        assert path.read_bytes() == expected(10)
        facts_now = load(manifest_path(path))
        assert facts_now is not None
        assert facts_now.input.rows == 10


def test_another_stream_is_refused_and_none_of_its_rows_is_kept(path: Path) -> None:
    with Output(path, stream_facts()) as output:
        _feed(output, range(5))
        _feed(output, range(6, 20))
    kept = path.read_bytes()
    with Output(path, stream_facts()) as output:
        output.add(5, b'{"index":5,"wrong":1}\n')
        with pytest.raises(UsageError, match="its first 20 rows were not those"):
            output.reached(20, lambda: "0" * 64)
    assert path.read_bytes() == kept
    with Output(path, stream_facts()) as output:
        _feed(output, range(6))
        with pytest.raises(UsageError, match="had 20 rows or more, this one has 6"):
            output.finish()
    assert path.read_bytes() == kept
    with Output(path, stream_facts()) as output:
        _feed(output, range(20))
        output.finish()
    assert path.read_bytes() == expected(20)


def test_what_an_interrupt_finds_done_is_kept(path: Path) -> None:
    def interrupted() -> None:
        with Output(path, facts(ROWS)) as output:
            add(output, [1, 2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == line(1) + line(2)
