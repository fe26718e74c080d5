"""The table of what the CUDA kernels use: it reads as it was written, and every excess is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "native" / "test" / "cuda"))

import budget

PTXAS = """\
ptxas info    : 0 bytes gmem, 40 bytes cmem[4]
ptxas info    : Compiling entry function 'dot_2' for 'sm_90'
ptxas info    : Function properties for dot_2
    48 bytes stack frame, 60 bytes spill stores, 64 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 48 bytes cumulative stack size
ptxas info    : Compile time = 358.827 ms
ptxas info    : Compiling entry function 'embed' for 'sm_90'
ptxas info    : Function properties for embed
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 512 bytes smem
""".splitlines()

SASS = """\
\t\tFunction : dot_2
        /*00a0*/                   LDG.E.64.SYS R2, [UR4] ;          /* 0x00000004ff027981 */
        /*0280*/              @!P0 LDG.E.NA.128.CONSTANT.SYS R20, [R2] ;
\t\tFunction : embed
        /*00a0*/                   LDG.E.U16.CONSTANT R2, [R4.64] ;
        /*00b0*/                   STL.64 [R1], R2 ;
""".splitlines()


def row(registers: int, width: int = 0) -> budget.Budget:
    return budget.Budget({90: registers}, width)


def test_the_compilers_words_are_read() -> None:
    uses = budget.read_ptxas(PTXAS)
    assert uses == {"dot_2": budget.Use(80, 172, 0, 0), "embed": budget.Use(30, 0, 512, 0)}


def test_the_instructions_tell_the_widest_load_and_local_memory() -> None:
    uses: budget.Uses = {}
    budget.read_sass(SASS, uses)
    assert uses == {"dot_2": budget.Use(width=128), "embed": budget.Use(width=32, local=1)}


def test_a_table_reads_as_it_was_written() -> None:
    uses = {"dot_16": budget.Use(90, width=128), "dot_2": budget.Use(80)}
    written = budget.table({80: uses, 90: uses}, {"dot_2": budget.Budget({}, 64)}, "13.0")
    version, rows = budget.read_table(written)
    assert version == "13.0"
    assert list(rows) == ["dot_2", "dot_16"]
    assert rows["dot_16"] == budget.Budget({80: 90, 90: 90}, 128)
    assert rows["dot_2"].width == 64  # as it was, where nobody looked


@pytest.mark.parametrize(
    ("use", "rows", "complaint"),
    [
        (budget.Use(80), {"dot": row(80)}, None),
        (budget.Use(79, width=128), {"dot": row(80, 128)}, None),
        (budget.Use(80), {"dot": row(80, 128)}, None),
        (budget.Use(81), {"dot": row(80)}, "takes 81 registers, not 80"),
        (budget.Use(80, width=64), {"dot": row(80, 128)}, "loads 64 bits at once, not 128"),
        (budget.Use(80, local=4), {"dot": row(80)}, "uses local memory"),
        (budget.Use(80, shared=16), {"dot": row(80)}, "has 16 bytes of static shared memory"),
        (budget.Use(80), {}, "is not in the table"),
    ],
)
def test_every_excess_is_told(
    use: budget.Use, rows: dict[str, budget.Budget], complaint: str | None
) -> None:
    found = budget.complaints({90: {"dot": use}}, rows, True)
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert found[0].startswith(f"dot on sm_90: {complaint}")


def test_a_kernel_that_is_no_longer_there_is_told() -> None:
    assert budget.complaints({90: {}}, {"dot": row(80)}, True) == [
        "dot on sm_90: is in the table only"
    ]


def test_registers_count_only_under_the_compiler_of_the_table() -> None:
    assert budget.complaints({90: {"dot": budget.Use(99)}}, {"dot": row(80)}, False) == []
