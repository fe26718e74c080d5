"""The tokens of a state behave like a list, cost nothing to copy, and may be forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle.statefiles import with_note

from rwkv_cli.cli import feeding
from rwkv_cli.cli.feeding import Feeding
from rwkv_cli.cli.prompt import Prompt
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import TokenLog
from rwkv_cli.errors import RefusedError

IDS = st.lists(st.integers(0, 2**32 - 1), max_size=8)


@given(st.lists(IDS, max_size=5), IDS, IDS, st.integers(0, 30))
def test_copies_grow_on_their_own(parts: list[list[int]], a: list[int], b: list[int], kept: int):
    log, plain = TokenLog(), []
    for part in parts:
        log.extend(part)
        plain += part
    twin = log.copy()
    log.extend(a)
    twin.extend(b)
    assert list(log) == log[:] == plain + a
    assert list(twin) == twin[:] == plain + b
    twin.forget(kept)
    assert list(log) == plain + a
    assert len(twin) == len(plain + b)
    assert list(twin) == (plain + b)[max(0, len(plain + b) - kept) :]


@given(IDS, st.integers(0, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_places_are_those_of_the_whole(ids: list[int], kept: int, start: int, end: int) -> None:
    log = TokenLog(ids)
    log.forget(kept)
    gone = log.forgotten
    for index in (start, slice(start, end), slice(start, None)):
        places = range(len(ids))[index] if isinstance(index, slice) else [index % max(1, len(ids))]
        if isinstance(index, int) and not -len(ids) <= index < len(ids):
            continue
        if any(place < gone for place in places):
            with pytest.raises(IndexError):
                log[index]
        else:
            assert log[index] == ids[index]


def test_what_is_fed_for_weeks_is_forgotten_but_counted(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "_REMEMBERED", 20)
    text = tmp_path / "log"
    text.write_bytes(b"a line of a log\n" * 5000)
    path = tmp_path / "x.rwkvstate"
    fed = Feeding(model, model.zero_state(), path, every=0, quiet=True)
    fed.run(Prompt(files=(str(text),)))
    whole = model.zero_state()
    model.advance_stream(model.tokenizer.encode_stream([text.read_bytes()]), whole)
    kept = model.load_state(path)
    assert kept.position == fed.state.position == whole.position
    assert len(list(kept.tokens)) <= 70_000  # a block that was read last, and no more
    assert list(kept.tokens) == whole.tokens[kept.tokens.forgotten :]
    assert all(np.array_equal(kept.arrays[name], whole.arrays[name]) for name in whole.arrays)


@pytest.mark.parametrize("count", ["-1", "x", "1", str(1 << 60)])
def test_a_count_of_forgotten_tokens_that_makes_no_sense_is_refused(
    model: Model, tmp_path: Path, count: str
) -> None:
    path = tmp_path / "x.rwkvstate"
    _, state = model.prefill([1, 2, 3])
    state.save(path)
    path.write_bytes(with_note(path.read_bytes(), "forgotten", count))
    with pytest.raises(RefusedError, match="tokens"):
        model.load_state(path)
