"""An input that changes while it is read: it is what it was at the start, or it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rwkv_cli.batch.reading import open_rows
from rwkv_cli.errors import RefusedError

GOOD_LINE = b'{"prompt":"hello"}\n'


def test_rows_that_are_added_after_the_survey_are_not_of_this_run(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt":"hello"}\n{"prompt":"hel')
    with open_rows(path) as source:
        survey = source.survey()
        with path.open("ab") as file:
            file.write(b'lo"}\n{"prompt":"hello"}\n')
        rows = list(source)
    assert survey
    assert survey.rows == 2
    assert [row.error is None for row in rows] == [True, False]


@pytest.mark.parametrize("changed", [GOOD_LINE[:-3], GOOD_LINE.replace(b"hello", b"jello")])
def test_an_input_that_is_not_what_was_surveyed_is_refused(changed: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD_LINE * 20_000)
    with open_rows(path) as source:
        assert source.survey()
        path.write_bytes(GOOD_LINE * 19_999 + changed)
        with pytest.raises(RefusedError, match="was changed while it was read"):
            for _ in source:
                pass
