"""`rwkv bench`: what it writes, in every form, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from cli.conftest import Cli
from cli.running import rwkv

from rwkv_cli.bench.ceilings import Ceilings
from rwkv_cli.bench.fresh import Fresh
from rwkv_cli.bench.rows import UNITS, quantile
from rwkv_cli.bench.timing import Timing
from rwkv_cli.cli import benchrun
from rwkv_cli.native import library

SMALL = ("-p", "8", "-n", "4", "-d", "0,16", "-r", "3", "-t", "1")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put known figures in place of what takes seconds."""
    monkeypatch.setattr(benchrun, "fresh_process", lambda module, arguments: Fresh(0.25, 1 << 28))
    peaks = Ceilings(1, 1e10, 1e10, {"fp32": 1e11, "int8": 4e11})
    monkeypatch.setattr(benchrun, "measure_ceilings", lambda threads, tell: peaks)
    monkeypatch.setattr("rwkv_cli.bench.machine._PAUSE", 0.01)


def record_of(cli: Cli, *arguments: object) -> dict[str, Any]:
    result = cli("bench", "-m", "demo", *SMALL, "--json", "-q", *arguments)
    assert (result.code, result.err) == (0, "")
    record: dict[str, Any] = json.loads(result.out)
    return record


# What is measured


def test_a_record_says_what_was_measured_with_what(cli: Cli) -> None:
    record = record_of(cli, "-b", "1,2")
    assert record["format"] == "rwkv bench 1"
    assert record["complete"] is True
    assert record["command"].startswith("rwkv bench -m")
    assert "-p 8 -n 4 -d 0,16 -b 1,2 -r 3" in record["command"]
    assert record["model"]["shape"] == "L6 D192 V2048"
    assert record["model"]["state_bytes"] == 304_128
    assert record["machine"]["cpu"]
    assert record["ceilings"][0]["read_bytes_per_second"] == 1e10
    rows = record["results"]
    assert {row["test"] for row in rows} == set(UNITS)
    assert all(row["engine"] and row["threads"] == 1 for row in rows)
    decodes = [(row["depth"], row["batch"]) for row in rows if row["test"] == "decode"]
    assert decodes == [(0, 1), (0, 2), (16, 1), (16, 2)]
    assert [row["depth"] for row in rows if row["test"] == "prefill"] == [0, 16]


def test_the_figures_of_a_record_agree_with_each_other(cli: Cli) -> None:
    record = record_of(cli, "-b", "2")
    for row in record["results"]:
        assert row["repeats"] == len(row["runs"])
        assert row["median"] == median(row["runs"])
        assert row["min"] == min(row["runs"]) <= row["median"] <= row["max"] == max(row["runs"])
        if row["unit"] == "s/token":
            assert row["tokens_per_second"] == pytest.approx(1 / row["median"])
        if row["test"] == "decode":
            assert [len(run) for run in row["samples"]] == [4, 4, 4]
            assert row["runs"] == pytest.approx([sum(run) / 4 for run in row["samples"]])
            flat = [value for run in row["samples"] for value in run]
            assert row["p95"] == quantile(flat, 0.95)
    resume = record["resume"][0]
    by_test = {row["test"]: row for row in record["results"]}
    assert resume["depth"] == 16
    assert resume["state_load_s"] == by_test["state_load"]["median"]
    assert resume["ratio"] == pytest.approx(by_test["reread"]["median"] / resume["state_load_s"])


def test_shares_are_what_the_model_needs_by_what_the_machine_gives(cli: Cli) -> None:
    record = record_of(cli, "--dtype", "fp32", "-b", "1,2", "-d", "0")
    rows = [row for row in record["results"] if row["share"] is not None]
    assert {row["share_of"] for row in rows} == {"read bandwidth", "fp32"}
    for row in rows:
        if row["test"] == "decode":  # 3,641,280 parameters less embedding and vectors
            touched = row["share"] * row["median"] * row["batch"] * 1e10
            assert 0.85 * 4 * 3_248_064 < touched < 4 * 3_248_064


def test_every_precision_and_number_of_threads_is_measured(cli: Cli) -> None:
    rows = record_of(cli, "--dtype", "fp32,bf16", "-t", "1,2", "-d", "0")["results"]
    ran = {(row["dtype"], row["threads"]) for row in rows if row["test"] == "decode"}
    assert ran == {("fp32", 1), ("fp32", 2), ("bf16", 1), ("bf16", 2)}


def test_a_saved_state_is_one_more_depth(cli: Cli, tmp_path: Path) -> None:
    state = tmp_path / "x.rwkvstate"
    cli(
        "generate", "-m", "demo", "-N", "1", "--ban", "0", "Once upon a time", "--save-state", state
    )
    rows = record_of(cli, "--state", state, "-d", "0")["results"]
    depths = {row["depth"] for row in rows if row["test"] == "decode"}
    assert len(depths) == 2
    assert 0 in depths
    assert not [row for row in rows if row["test"] == "reread"]


def test_a_text_of_ones_own_is_read(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"A text of our own.\xff")
    assert f"-f {file}" in record_of(cli, "-f", file, "-d", "0")["command"]


def test_without_the_library_the_machine_stays_unmeasured(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(threads: int, tell: object) -> Ceilings:
        raise library.UnavailableError("there is no library")

    monkeypatch.setattr(benchrun, "measure_ceilings", missing)
    record = record_of(cli, "-d", "0")
    assert record["no_ceilings"] == "there is no library"
    assert all(row["share"] is None for row in record["results"])
    out = cli("bench", "-m", "demo", *SMALL, "-d", "0", "-q").out.decode()
    assert "no shares of the machine's peak: there is no library" in out


def test_a_fresh_process_is_really_started(env: dict[str, str]) -> None:
    result = rwkv(["bench", "-p", "4", "-n", "2", "-d", "0", "-r", "1", "-t", "1", "--json"], env)
    rows = {row["test"]: row for row in json.loads(result.stdout)["results"]}
    assert rows["first_token"]["tokens"] == 16
    assert rows["first_token"]["median"] > 0
    if sys.platform.startswith("linux"):
        assert 10e6 < rows["peak_memory"]["median"] < 2e9


# How it is written


def test_the_table_is_the_product_and_progress_goes_to_stderr(cli: Cli) -> None:
    result = cli("bench", "-m", "demo", *SMALL)
    out = result.out.decode()
    assert "tokens/s" in out
    for name in ("prefill 8 at 16", "decode 4", "first token", "268 MB", "resuming at 16"):
        assert name in out
    assert "decode 4 at 16" in result.err
    assert max(map(len, out.split("\n\n")[1].splitlines())) < 80


def test_csv_has_a_line_for_each_measurement(cli: Cli) -> None:
    rows = list(
        csv.DictReader(
            io.StringIO(cli("bench", "-m", "demo", *SMALL, "--format", "csv", "-q").out.decode())
        )
    )
    assert {row["test"] for row in rows} == set(UNITS)
    for row in rows:
        if row["test"] == "decode":
            assert float(row["tokens_per_second"]) == pytest.approx(1 / float(row["median"]))


def test_markdown_has_its_tables(cli: Cli) -> None:
    out = cli("bench", "-m", "demo", *SMALL, "--format", "md").out.decode()
    assert "| test | ms/token | min-max | p95 | tokens/s | of peak |\n| --- | ---: |" in out


def test_the_name_of_the_output_tells_its_form(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    result = cli("bench", "-m", "demo", *SMALL, "-o", file)
    assert result.out == b""
    assert "tokens/s" in result.err
    assert json.loads(file.read_text())["complete"] is True


def test_a_record_is_compared_with_an_earlier_one(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    old = record_of(cli, "-d", "0")
    for row in old["results"]:
        for key in ("median", "min", "max"):
            row[key] *= 1000
    old["machine"]["cpu"] = "Another"
    file.write_text(json.dumps(old))
    new = record_of(cli, "-d", "0", "--compare", file)
    verdicts = {row["test"]: row["verdict"] for row in new["comparison"]}
    assert verdicts["decode"] == verdicts["prefill"] == "better"
    for was, row in zip(old["results"], new["results"], strict=True):
        found = next(c for c in new["comparison"] if c["test"] == row["test"])
        assert found["ratio"] == pytest.approx(was["median"] / row["median"])
    assert any("Another" in warning for warning in new["warnings"])
    given = ("bench", "-m", "demo", *SMALL, "-d", "0", "-q", "--compare", file)
    assert "against the earlier record" in cli(*given).out.decode()
    rows = list(csv.DictReader(io.StringIO(cli(*given, "--format", "csv").out.decode())))
    assert {"better"} <= {row["verdict"] for row in rows}


@pytest.mark.parametrize(("name", "start"), [("x.png", b"\x89PNG"), ("x.SVG", b"<?xml")])
def test_time_is_drawn_against_position(cli: Cli, tmp_path: Path, name: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    result = cli("bench", "-m", "demo", *SMALL, "--plot", tmp_path / name)
    assert result.code == 0
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_picture_needs_matplotlib_and_says_so_first(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = cli("bench", "-m", "demo", *SMALL, "--plot", tmp_path / "x.png")
    assert (result.code, result.out) == (3, b"")
    assert "pip install 'rwkv-cli[plot]'" in result.err


def test_an_interrupt_keeps_what_was_measured(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Timing.rows

    def interrupted(self: Timing) -> Iterator[Any]:
        yield next(iter(whole(self)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Timing, "rows", interrupted)
    result = cli("bench", "-m", "demo", *SMALL, "--json", "-q")
    record = json.loads(result.out)
    assert result.code == 130
    assert record["complete"] is False
    assert [row["test"] for row in record["results"]][-1] == "prefill"


def test_an_interrupt_before_anything_is_measured_writes_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchrun, "load", interrupted)
    result = cli("bench", "-m", "demo", *SMALL, "--json", "-q")
    assert (result.code, result.out) == (130, b"")


# What it refuses


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["-p", "0"], 2, "prefill is 0"),
        (["-p", "x"], 2, "prefill is 'x'"),
        (["-p", "1,,2"], 2, "prefill"),
        (["-n", "0"], 2, "decode is 0"),
        (["-n", ""], 2, "decode"),
        (["-d", "-1"], 2, "depth is -1"),
        (["-b", "65"], 2, "between 1 and 64"),
        (["-r", "0"], 2, "repeat is 0"),
        (["-r", "1,2"], 2, "one number"),
        (["-t", "0"], 2, "threads is 0"),
        (["-t", "many"], 2, "threads is 'many'"),
        (["--dtype", "fp32,fp99"], 2, "fp99"),
        (["--device", "abacus"], 2, "abacus"),
        (["--engine", "steam"], 2, "steam"),
        (["--format", "jsn"], 2, "did you mean json?"),
        (["--format", "csv", "--json"], 2, "contradict"),
        (["--plot", "x.pdf"], 2, ".png or .svg"),
        (["--plot", "/nowhere/x.png"], 3, "no such folder"),
        (["-o", "/nowhere/x.json"], 3, "no such folder"),
        (["--state", "none.rwkvstate"], 3, "no such file"),
        (["-f", "none.txt"], 3, "no such file"),
        (["--compare", "none.json"], 3, "no such file"),
        (["-m", "nosuch"], 3, "no model called"),
        (["words"], 2, "unexpected extra argument"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(
    cli: Cli, flags: list[str], code: int, text: str
) -> None:
    result = cli("bench", *flags)
    assert (result.code, result.out) == (code, b"")
    assert text in result.err


@pytest.mark.parametrize(
    "content",
    [b"", b"no JSON", b"[]", b"{}", b'{"format": "rwkv bench 1"}', b"[" * 100_000],
)
def test_what_is_no_record_is_refused(cli: Cli, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "old.json"
    file.write_bytes(content)
    result = cli("bench", "--compare", file)
    assert (result.code, result.out) == (6, b"")
    assert "rwkv bench --json -o FILE" in result.err


def test_a_record_with_a_damaged_row_is_refused(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    record = record_of(cli, "-d", "0")
    for change in ({"median": 0}, {"median": "1"}, {"test": None}, {"threads": None}):
        damaged = {**record, "results": [{**record["results"][0], **change}]}
        file.write_text(json.dumps(damaged))
        assert cli("bench", "--compare", file).code == 6
