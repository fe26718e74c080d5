"""Tables for people: what fits a terminal, and what gives way when not everything does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.render.tables import fitted, hanging
from rwkv_cli.render.wrap import columns

ROWS = [
    ["* a-long-name-of-a-model-20260930", "3.1 GB", "v7", "g1", "bf16", "some/where"],
    ["  x", "0.0 MB", "unusable: a reason that is longer than the other cells of its row"],
]
CELL = st.text(st.characters(codec="utf-8"), max_size=12)


def test_columns_are_aligned_where_there_is_room() -> None:
    first, second = fitted(ROWS, None).splitlines()
    assert first.index("3.1 GB") == second.index("0.0 MB")
    assert first.index("v7") == second.index("unusable")
    assert second.endswith("of its row")


@pytest.mark.parametrize(
    ("width", "last"), [(80, "some/where"), (60, "bf16"), (52, "g1"), (48, "v7"), (44, "3.1 GB")]
)
def test_the_last_columns_give_way_first(width: int, last: str) -> None:
    assert fitted(ROWS, width).splitlines()[0].endswith(last)


def test_a_long_name_loses_its_middle_and_keeps_its_size() -> None:
    line = fitted(ROWS, 30).splitlines()[0]
    assert line.startswith("* a-long")
    assert line.endswith("0930  3.1 GB")
    assert "…" in line


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=5), max_size=5), width=st.integers(40, 90))
def test_every_row_is_one_line_that_fits(rows: list[list[str]], width: int) -> None:
    lines = fitted(rows, width).split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(rows)
    assert all(columns(line) < width for line in lines)


def test_a_long_text_goes_on_below_itself_and_a_path_stays_whole() -> None:
    path = "/a/path/that/is/longer/than/the/room/there/is"
    text = hanging(
        [("models", "one two three four five six"), ("path", path), ("", "-> go")], 10, 30
    )
    assert text.splitlines() == [
        "models    one two three four",
        "          five six",
        f"path      {path}",
        "          -> go",
    ]
    assert hanging([("a", "b " * 40)], 10, None).count("\n") == 1


def test_cells_cannot_drive_a_terminal() -> None:
    assert "\x1b" not in fitted([["\x1b[31m", "a\nb"]], 80) + hanging([("\x1b", "\x1b")], 5, 40)
