"""A prompt that was read before gives the very state and answer of one that was not."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.generation import Generation
from rwkv_cli.sampling import Sampling
from rwkv_cli.store import prefix
from rwkv_cli.store.prefix import PrefixCache, Reading
from rwkv_cli.traces import Randomness

DOCUMENT = bytes(random.Random(5).randrange(1, 256) for _ in range(700))


def _read(
    model: Model, folder: Path, text: bytes, seams: tuple[int, ...] = (), *, enabled: bool = True
) -> tuple[State, Reading]:
    """Read a text in another process, so to speak."""
    cache, state = PrefixCache(folder, enabled=enabled), model.zero_state()
    half = len(text) // 2
    pieces = [model.tokenizer.encode(text[:half]), model.tokenizer.encode(text[half:])]
    found = cache.read(model, pieces, state, seams)
    cache.close()
    assert cache.failure is None
    assert state.position == found.total
    return state, found


def _same(a: State, b: State) -> bool:
    assert a.logits is not None
    assert b.logits is not None
    pairs = [(a.arrays[name], b.arrays[name]) for name in a.arrays]
    return a.tokens == b.tokens and all(
        x.tobytes() == y.tobytes() for x, y in [*pairs, (a.logits, b.logits)]
    )


def _answer(model: Model, state: State) -> bytes:
    run = Generation(model, state, Sampling(0), Randomness(1), max_tokens=12)
    return b"".join(event.data for event in run)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.rwkvstate"))


def test_warm_equals_cold_at_every_seam(each: Model, tmp_path: Path) -> None:
    seams = (200, len(DOCUMENT))
    first, second = DOCUMENT + b"why?", DOCUMENT + b"where, and when?"
    cold, found = _read(each, tmp_path / "none", second, seams, enabled=False)
    assert found.cached == 0
    assert not (tmp_path / "none").exists()
    _, found = _read(each, tmp_path / "x", first, seams)
    assert found.cached == 0
    warm, found = _read(each, tmp_path / "x", second, seams)
    assert found.cached == len(DOCUMENT) - prefix.MARGIN
    assert _same(warm, cold)
    again, found = _read(each, tmp_path / "x", second, seams)
    assert found.cached == found.total == len(second)
    assert _same(again, cold)
    assert _answer(each, again) == _answer(each, cold)


def test_every_entry_gives_the_same_state(each: Model, tmp_path: Path) -> None:
    cold, _ = _read(each, tmp_path, DOCUMENT, (150, 300))
    entries = _entries(tmp_path)
    assert len(entries) == 4  # two seams, 512 and the end
    for _ in entries:
        warm, _ = _read(each, tmp_path, DOCUMENT, (150, 300))
        assert _same(warm, cold)
        longest = max(_entries(tmp_path), key=lambda path: len(prefix._tokens_of(path)))
        longest.write_bytes(longest.read_bytes()[:-1] + b"?")  # damaged: the next shorter is used


def test_a_changed_byte_is_read_again_with_all_that_follows(each: Model, tmp_path: Path) -> None:
    _read(each, tmp_path, DOCUMENT, (150, 300))
    changed = DOCUMENT[:200] + b"\x07" + DOCUMENT[201:]
    cold, _ = _read(each, tmp_path / "none", changed, (150, 300), enabled=False)
    warm, found = _read(each, tmp_path, changed, (150, 300))
    assert found.cached == 150 - prefix.MARGIN
    assert _same(warm, cold)


def test_where_prompts_part_the_third_begins(model: Model, tmp_path: Path) -> None:
    texts = [DOCUMENT[:300] + bytes([seed]) * 100 for seed in range(1, 4)]
    found = [_read(model, tmp_path, text)[1].cached for text in texts]
    assert found == ([0, 0, 300] if model.engine.exact_splits else [0, 0, 0])


@pytest.mark.parametrize("part", ["weights", "tokenizer", "numerics", "arch"])
def test_no_other_model_uses_an_entry(model: Model, tmp_path: Path, part: str) -> None:
    _read(model, tmp_path, DOCUMENT)
    other = replace(model, identity=replace(model.identity, **{part: "other;V=256;"}))
    assert _read(other, tmp_path, DOCUMENT)[1].cached == 0


def test_short_prompts_are_not_kept(model: Model, tmp_path: Path) -> None:
    _read(model, tmp_path, DOCUMENT[:60])
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_goes_on_is_read_plainly(model: Model, tmp_path: Path) -> None:
    _read(model, tmp_path, DOCUMENT)
    state = model.prefill([1, 2, 3])[1]
    cache = PrefixCache(tmp_path)
    assert cache.read(model, [list(DOCUMENT)], state) == Reading(len(DOCUMENT), 0)
    assert state.tokens == [1, 2, 3, *DOCUMENT]


def test_what_comes_after_those_looked_at_is_read_too(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix, "AHEAD", 300)
    cold, _ = _read(model, tmp_path / "none", DOCUMENT, enabled=False)
    for cached in (0, 350):
        state, found = _read(model, tmp_path, DOCUMENT)
        assert (found.cached, found.total) == (cached, len(DOCUMENT))
        assert _same(state, cold)


def test_a_restored_state_is_nobody_elses(model: Model, tmp_path: Path) -> None:
    first, _ = _read(model, tmp_path, DOCUMENT)
    one, _ = _read(model, tmp_path, DOCUMENT)
    for array in one.arrays.values():
        array.fill(np.nan)
    two, _ = _read(model, tmp_path, DOCUMENT)
    assert _same(two, first)


def test_a_folder_that_cannot_be_written_costs_nothing(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache, state = PrefixCache(tmp_path / "file" / "x"), model.zero_state()
    assert cache.read(model, [list(DOCUMENT)], state).cached == 0
    cache.close()
    assert cache.failure is not None
