"""The parts of a measurement, each against what is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rwkv_cli.arch.spec import Dims, get_arch
from rwkv_cli.bench.ceilings import Ceilings, measure_ceilings, with_share
from rwkv_cli.bench.compare import compare
from rwkv_cli.bench.cost import dtype_of, prefill_operations, touched_bytes
from rwkv_cli.bench.fresh import fresh_process
from rwkv_cli.bench.machine import Busy, Watch, cpu_name
from rwkv_cli.bench.record import make_record
from rwkv_cli.bench.rows import Engine, Row, quantile
from rwkv_cli.bench.text import passage
from rwkv_cli.errors import LimitError, RwkvError
from rwkv_cli.native import library
from rwkv_cli.render.chart import chart
from rwkv_cli.render.tables import aligned, markdown
from rwkv_cli.text.byte import ByteTokenizer

CPU = Engine("native vnni int8", "int8", 2)
QUIET = Busy(0.0, 0.0, 0.1)


def goose(layers: int, width: int, ranks: tuple[int, int, int, int]) -> Dims:
    """Sizes of an official RWKV-7."""
    letters = {"C": width, "A": width, "H": width // 64, "N": 64, "F": 4 * width, "V": 65536}
    letters |= dict(zip(("Dw", "Da", "Dv", "Dg"), ranks, strict=True))
    return Dims(layers, width, 65536, letters)


# What a token costs


@pytest.mark.parametrize(
    ("layers", "width", "ranks", "millions"),
    [
        (12, 768, (64, 64, 32, 128), 140.5),
        (24, 1024, (64, 64, 32, 128), 383.2),
        (24, 2048, (96, 96, 64, 256), 1392.2),
    ],
)
def test_a_token_touches_every_matrix_but_the_embedding(
    layers: int, width: int, ranks: tuple[int, int, int, int], millions: float
) -> None:
    arch, dims = get_arch("v7"), goose(layers, width, ranks)
    weights = touched_bytes(arch, dims, "fp32") / 4
    assert weights / 1e6 == pytest.approx(millions, abs=0.1)
    assert touched_bytes(arch, dims, "bf16") == 2 * weights
    assert touched_bytes(arch, dims, "int8") == pytest.approx(1.0625 * weights)
    assert prefill_operations(arch, dims) == 2 * (weights - 65536 * width)


def test_at_four_bits_head_and_low_ranks_keep_eight() -> None:
    arch, dims = get_arch("v7"), goose(1, 128, (8, 8, 8, 8))
    fine = 65536 * 128 + 3 * 2 * 8 * 128  # the first layer has no value residual
    coarse = 4 * 128 * 128 + 2 * 512 * 128
    assert touched_bytes(arch, dims, "int4") == pytest.approx(1.0625 * fine + 0.5625 * coarse)


@pytest.mark.parametrize(
    ("numerics", "dtype"),
    [("torch cpu bf16", "bf16"), ("native vnni int8", "int8"), ("something else", None)],
)
def test_the_precision_is_told_by_the_engines_name(numerics: str, dtype: str | None) -> None:
    assert dtype_of(numerics) == dtype


def test_shares_are_of_bandwidth_and_of_the_arithmetic_there_is() -> None:
    arch, dims = get_arch("v7"), goose(12, 768, (64, 64, 32, 128))
    both = Ceilings(2, 30e9, 30e9, {"fp32": 1e11, "int8": 4e11})
    decode = with_share(Row("decode", (0.01,), CPU, batch=4), arch, dims, both).share
    assert decode is not None
    assert decode.share == pytest.approx(touched_bytes(arch, dims, "int8") / 0.04 / 30e9)
    prefill = Row("prefill", (0.001,), CPU)
    for peaks, of in (({"fp32": 1e11, "int8": 4e11}, "int8"), ({"fp32": 1e11}, "fp32")):
        found = with_share(prefill, arch, dims, Ceilings(2, 1.0, 1.0, peaks)).share
        assert found is not None
        assert found.of == of
        assert found.share == pytest.approx(prefill_operations(arch, dims) / 0.001 / peaks[of])
    assert with_share(Row("load", (1.0,), CPU), arch, dims, both).share is None


# Statistics and comparisons


def test_a_quantile_lies_between_its_neighbours() -> None:
    assert quantile([1.0], 0.95) == 1.0
    assert quantile([4.0, 2.0, 3.0, 1.0], 0.0) == 1.0
    assert quantile([4.0, 2.0, 3.0, 1.0], 1.0) == 4.0
    assert quantile([0.0, 10.0], 0.95) == pytest.approx(9.5)


def record(*runs: float) -> dict[str, Any]:
    rows = [Row("decode", runs, CPU, tokens=4, steps=(runs,))]
    return make_record("rwkv bench", {"name": "x"}, rows, "none", QUIET, complete=True)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ((2.0, 2.1, 2.2), (1.0, 1.1, 1.2), "better"),
        ((1.0, 1.1, 1.2), (2.0, 2.1, 2.2), "worse"),
        ((1.0, 1.1, 1.2), (1.1, 1.2, 1.3), "same"),
        ((1.0, 1.0, 1.0), (1.001, 1.001, 1.001), "same"),
        ((2.0, 2.1), (1.0, 1.1), "unclear"),
        ((2.0,), (1.0,), "unclear"),
    ],
)
def test_only_what_leaves_the_spread_counts(
    old: tuple[float, ...], new: tuple[float, ...], verdict: str
) -> None:
    found = compare(record(*old), record(*new))
    assert [row["verdict"] for row in found] == [verdict]


def test_what_only_one_record_has_is_not_compared() -> None:
    other = record(1.0, 1.0, 1.0)
    other["results"][0]["threads"] = 7
    assert compare(other, record(1.0, 1.0, 1.0)) == []


def test_engines_are_held_against_each_other_unless_a_record_has_both() -> None:
    old, new = record(2.0, 2.0, 2.0), record(1.0, 1.0, 1.0)
    old["results"][0]["engine"] = "torch cpu int8"
    assert [row["ratio"] for row in compare(old, new)] == [2.0]
    both = {"results": [*old["results"], *new["results"]]}
    assert [(row["ratio"], row["engine"][:5]) for row in compare(both, both)] == [
        (1.0, "torch"),
        (1.0, "nativ"),
    ]


# Circumstances


def test_a_busy_machine_is_told() -> None:
    assert QUIET.warning() is None
    assert "before" in str(Busy(1.5, 0.1, 0.0).warning())
    assert "while" in str(Busy(0.1, 1.5, 0.0).warning())
    assert "load" in str(Busy(None, None, 1e6).warning())


def test_an_unsteady_machine_and_a_wide_spread_are_told() -> None:
    unsteady = Ceilings(1, 10e9, 10e9).merged(Ceilings(1, 30e9, 30e9))
    rows = [Row("decode", (1.0, 2.0), CPU), Row("prefill", (1.0, 1.0), CPU)]
    told = make_record("", {}, rows, [unsteady], QUIET, complete=True)["warnings"]
    assert "10.0 and at 30.0 GB/s" in told[0]
    assert told[1].endswith(": decode")


def test_work_of_others_is_counted_where_the_system_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rwkv_cli.bench.machine._PAUSE", 0.01)
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 0 500 0 0 0 0 0 0\n")
    watch = Watch(stat)
    stat.write_text("cpu  100100 0 0 500 0 0 0 0 0 0\n")
    during = watch.so_far().during
    assert during is not None
    assert during > 100
    stat.write_text("nonsense")
    assert watch.so_far().during is None


def test_the_processor_is_named(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: A  Fine CPU\n")
    assert cpu_name(info) == "A Fine CPU"
    assert cpu_name(tmp_path / "none")


def test_a_text_begins_anew_at_its_end() -> None:
    tokenizer = ByteTokenizer()
    assert bytes(passage(tokenizer, 5, 1, b"abc")) == b"bcabc"
    assert len(passage(tokenizer, 5000)) == 5000


def test_a_fresh_process_that_fails_says_why() -> None:
    with pytest.raises(RwkvError, match="no such command"):
        fresh_process("rwkv_cli.cli.probe", ["nonsense"])


def test_a_fresh_process_has_a_memory_of_its_own() -> None:
    """Its peak is not that of the parent, whatever the parent held."""
    code = (
        "big = bytearray(400_000_000);"
        "from rwkv_cli.bench.fresh import fresh_process;"
        "print(fresh_process('rwkv_cli.cli.probe', ['models', '-q']).peak)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    if sys.platform.startswith("linux"):
        assert 1_000_000 < int(said) < 200_000_000


# The machine


@pytest.mark.skipif(not library.is_available(), reason="there is no native library")
def test_the_machine_is_measured() -> None:
    from rwkv_cli.native.measure import read_bandwidth
    from rwkv_cli.native.pool import Pool

    told: list[float] = []
    found = measure_ceilings(1, lambda _, done: told.append(done))
    assert 1e8 < found.read < 1e13
    assert 1e8 < found.arithmetic["fp32"] < 1e14
    assert told == sorted(told)
    for nbytes, seconds in ((0, 0.1), (1 << 62, 0.1), (1 << 20, -1.0), (1 << 20, float("nan"))):
        with pytest.raises((library.NativeError, LimitError)):
            read_bandwidth(Pool(1), nbytes, seconds)


# Drawings


def test_columns_stand_under_each_other() -> None:
    text = aligned([["test", "ms"], ["decode", "1"], ["界", "22"]])
    assert text == "test    ms\ndecode   1\n界      22\n"


def test_a_cell_cannot_break_a_table() -> None:
    assert markdown([["a", "b"], ["x|y", "\x1b[1m"]]).splitlines()[2].count(" | ") == 1
    assert "\x1b" not in markdown([["a"], ["\x1b[1m"]])
    assert "\x1b" not in aligned([["a"], ["\x1b[1m"]])


def test_a_chart_grows_from_zero_and_fits() -> None:
    drawn = chart([("at 0", [1.0] * 500), ("at 4,096", [0.5] * 500)], width=60, height=4)
    lines = drawn.splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) < 60
    assert lines[0].split() == ["1", "█" * 23]  # the second series is half as high
    assert lines[2].count("█") == 46
    assert "at 4,096" in lines[-1]


def test_a_chart_for_old_terminals_is_ascii() -> None:
    assert chart([("x", [1.0, 2.0, 3.0])], width=40, unicode=False).isascii()
    assert chart([("x", [0.0])], width=5)
