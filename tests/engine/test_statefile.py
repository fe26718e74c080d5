"""State files: what goes in comes out, for the model that it belongs to, or nothing does."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from oracle.models import TINY, load, save_pth
from oracle.statefiles import full_state, with_note, with_tensor
from oracle.weights import Shape, random_model, tuned_state
from safetensors import safe_open

from rwkv_cli.engine.identity import described
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import Attachments, State
from rwkv_cli.engine.statefile import inspect_state, read_attachments, verify_state
from rwkv_cli.errors import MismatchError, NotFoundError, RefusedError, StorageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.rwkvstate"


@pytest.fixture
def saved(model: Model, path: Path) -> bytes:
    """The content of a state file with everything in it; it lies at `path`."""
    full_state(model).save(path)
    return path.read_bytes()


def _equal(a: Attachments, b: Attachments) -> bool:
    return (a.sampler, a.transcript, a.tail) == (b.sampler, b.transcript, b.tail) and all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for x, y in ((a.penalty_ids, b.penalty_ids), (a.penalty_counts, b.penalty_counts))
    )


def test_loaded_state_is_the_saved_one(each: Model, path: Path) -> None:
    state = full_state(each)
    state.save(path)
    loaded = each.load_state(path)
    assert list(loaded.arrays) == list(state.arrays)
    for name, array in state.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype == np.float32
        assert np.array_equal(loaded.arrays[name], array)
    assert np.array_equal(loaded.logits, state.logits)
    assert loaded.tokens == state.tokens
    assert _equal(loaded.attachments, state.attachments)
    assert loaded.identity == each.identity


def test_saving_a_loaded_state_gives_the_same_bytes(model: Model, path: Path) -> None:
    full_state(model).save(path)
    again = path.with_name("b.rwkvstate")
    model.load_state(path).save(again)
    assert again.read_bytes() == path.read_bytes()


def test_loaded_state_continues_bit_for_bit(each: Model, path: Path) -> None:
    _, state = each.prefill(list(range(1, 60)))
    state.save(path)
    expected, _ = each.prefill(list(range(60, 99)), state)
    logits, _ = each.prefill(list(range(60, 99)), each.load_state(path))
    assert np.array_equal(logits, expected)


def test_state_before_any_token_can_be_saved(each: Model, path: Path) -> None:
    each.zero_state().save(path)
    loaded = each.load_state(path)
    assert loaded.logits is None
    assert loaded.position == 0
    assert np.array_equal(each.prefill([1], loaded)[0], each.prefill([1])[0])


def test_tuned_start_is_part_of_the_state(tmp_path: Path, path: Path, engine: str) -> None:
    tensors = random_model("v7", TINY) | tuned_state(TINY)
    model = load(save_pth(tensors, tmp_path / "tuned.pth"), engine=engine)
    model.zero_state().save(path)
    wanted = np.stack([tensors[f"blocks.{i}.att.time_state"] for i in range(TINY.layers)])
    assert np.array_equal(model.load_state(path).arrays["wkv"], wanted)


def test_file_is_valid_for_the_official_library(model: Model, saved: bytes, path: Path) -> None:
    state = model.load_state(path)
    with safe_open(path, framework="np") as file:
        notes = file.metadata()
        assert np.array_equal(file.get_tensor("state.wkv"), state.arrays["wkv"])
        assert file.get_tensor("tokens").tolist() == list(state.tokens)
        assert bytes(file.get_tensor("zz.sha256")) == saved[-32:]
    assert notes["pos"] == str(state.position)


def test_file_tells_about_itself_without_its_model(model: Model, saved: bytes, path: Path) -> None:
    info = inspect_state(path)
    assert info.identity == model.identity
    assert info.position == model.load_state(path).position
    assert info.nbytes == len(saved)
    assert _equal(read_attachments(path), model.load_state(path).attachments)


def test_a_state_of_any_version_is_proven_whole_without_its_model(each: Model, path: Path) -> None:
    _, state = each.prefill([1, 2, 3])
    state.save(path)
    assert verify_state(path).tokens == [1, 2, 3]
    assert described(each.identity.arch) == (each.arch, each.dims)


@pytest.mark.parametrize("line", ["", "v7", "v8;L=1;C=1;V=1", "v7;L=1;C=1;H=1;V=1", "v7;L=²;C=1"])
def test_a_description_that_is_none_is_not_read(line: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        described(line)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_only_its_owner_can_read_a_file(model: Model, path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        model.prefill([1])[1].save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _other_weights(folder: Path) -> Path:
    return save_pth(random_model("v7", TINY, seed=1), folder / "weights.pth")


def _one_other_value(folder: Path) -> Path:
    tensors = random_model("v7", TINY)
    tensors["ln_out.bias"][3] += 1
    return save_pth(tensors, folder / "value.pth")


def _other_sizes(folder: Path) -> Path:
    shape = Shape(layers=3, heads=2, size=16, ffn=64, vocab=256)
    return save_pth(random_model("v7", shape), folder / "sizes.pth")


def _other_version(folder: Path) -> Path:
    return save_pth(random_model("v6", TINY), folder / "version.pth")


@pytest.mark.parametrize("other", [_other_weights, _one_other_value, _other_sizes, _other_version])
def test_state_of_another_model_is_refused(
    saved: bytes, path: Path, engine: str, other: Callable[[Path], Path]
) -> None:
    with pytest.raises(MismatchError, match=str(path)):
        load(other(path.parent), engine=engine).load_state(path)


def test_state_of_another_tokenizer_is_refused(model: Model, saved: bytes, path: Path) -> None:
    path.write_bytes(with_note(saved, "tokenizer", "0" * 64))
    with pytest.raises(MismatchError, match="tokenizer"):
        model.load_state(path)


@pytest.mark.parametrize("version", ["2", "10", "9" * 19])
def test_newer_format_is_refused_as_newer(
    model: Model, saved: bytes, path: Path, version: str
) -> None:
    path.write_bytes(with_note(saved, "rwkv.format", version))
    for read in (model.load_state, inspect_state, read_attachments):
        with pytest.raises(MismatchError, match="format"):
            read(path)


@pytest.mark.parametrize("version", ["", "x", "-1", "1.0", "²", "9" * 5000])
def test_format_that_is_no_number_is_refused(
    model: Model, saved: bytes, path: Path, version: str
) -> None:
    path.write_bytes(with_note(saved, "rwkv.format", version))
    for read in (model.load_state, inspect_state, read_attachments):
        with pytest.raises(RefusedError):
            read(path)


def _poison(state: State, where: str, value: float) -> None:
    if where == "logits":
        state.logits[5] = value
    elif where == "penalties":
        state.attachments.penalty_counts[0] = value
    else:
        state.arrays[where][1].reshape(-1)[3] = value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["wkv", "att_shift", "ffn_shift", "logits", "penalties"])
def test_numbers_that_are_not_finite_are_never_written(
    model: Model, saved: bytes, path: Path, where: str, value: float
) -> None:
    state = full_state(model)
    _poison(state, where, value)
    with pytest.raises(RefusedError, match="not finite"):
        state.save(path)
    assert path.read_bytes() == saved
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["state.wkv", "state.ffn_shift", "logits", "penalty.counts"])
def test_numbers_that_are_not_finite_are_never_read(
    model: Model, saved: bytes, path: Path, where: str, value: float
) -> None:
    with safe_open(path, framework="np") as file:
        array = file.get_tensor(where)
    array.reshape(-1)[-1] = value
    path.write_bytes(with_tensor(saved, where, "F32", list(array.shape), array.tobytes()))
    with pytest.raises(RefusedError, match="not finite"):
        model.load_state(path)


def test_state_of_no_model_cannot_be_saved(model: Model, path: Path) -> None:
    with pytest.raises(RefusedError, match="no model"):
        model.engine.zero_state().save(path)
    assert not path.exists()


def test_missing_file_is_not_found(model: Model, path: Path) -> None:
    for read in (model.load_state, inspect_state, read_attachments):
        with pytest.raises(NotFoundError, match=str(path)):
            read(path)


@pytest.mark.parametrize("failing", [1, 2])
def test_full_disk_leaves_a_whole_file(
    model: Model, saved: bytes, path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def sync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    newer = model.prefill([1, 2, 3])[1]
    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(StorageError, match="no space"):
        newer.save(path)
    if failing == 1:
        assert path.read_bytes() == saved
    else:  # the folder could not be made durable; whichever name survives, the file is whole
        assert model.load_state(path).tokens == [1, 2, 3]
    assert os.listdir(path.parent) == [path.name]
