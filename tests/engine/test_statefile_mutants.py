"""Damaged and hostile state files: a sentence, never another exception and never a broken state."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from checkpoints.mutate import mutants
from oracle.statefiles import full_state, marks, reseal, with_header, with_note, with_tensor

from rwkv_cli.arch.spec import state_shapes
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.state import State
from rwkv_cli.engine.statefile import inspect_state, read_attachments
from rwkv_cli.errors import RefusedError, RwkvError
from rwkv_cli.generation import Generation
from rwkv_cli.sampling import Sampling
from rwkv_cli.traces import Randomness, saved_sampler


@pytest.fixture(scope="module")
def sound(model: Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "a.rwkvstate"
    full_state(model).save(path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.rwkvstate"


def _check(model: Model, state: State) -> None:
    """A state that was accepted must be of the right shapes, finite, and go on."""
    assert {n: a.shape for n, a in state.arrays.items()} == state_shapes(model.arch, model.dims)
    assert all(np.isfinite(a).all() and a.dtype == np.float32 for a in state.arrays.values())
    assert state.logits is None or np.isfinite(state.logits).all()
    assert all(0 <= token < model.dims.vocab for token in state.tokens)
    saved = saved_sampler(state.attachments)
    _, state = model.prefill([65], state)
    sampling, randomness = saved or (Sampling(), Randomness(1))
    generation = Generation(model, state, sampling, randomness, max_tokens=3, stops=(b"\n\n",))
    with suppress(RefusedError):  # finite numbers near the largest overflow with the next token
        assert all(isinstance(event.data, bytes) for event in generation)


def _accepted(model: Model, path: Path) -> bool:
    """Read a file by every door; only errors with a sentence may come out."""
    for look in (inspect_state, read_attachments):
        with suppress(RwkvError):
            look(path)
    try:
        state = model.load_state(path)
    except RwkvError:
        return False
    _check(model, state)
    return True


def test_every_damaged_file_is_refused(model: Model, sound: bytes, path: Path) -> None:
    count = 0
    for mutant in mutants(sound, random.Random(11), 600, marks(sound)):
        if mutant != sound:
            count += 1
            path.write_bytes(mutant)
            with pytest.raises(RefusedError):
                model.load_state(path)
    assert count > 500


def test_every_truncation_is_refused(model: Model, sound: bytes, path: Path) -> None:
    for length in [*range(200), *range(200, len(sound), 61), len(sound) - 1]:
        path.write_bytes(sound[:length])
        with pytest.raises(RefusedError):
            model.load_state(path)


def test_every_flipped_bit_of_the_header_is_refused(model: Model, sound: bytes, path: Path) -> None:
    for at in range(0, 8 + int.from_bytes(sound[:8], "little"), 3):
        mutant = bytearray(sound)
        mutant[at] ^= 1 << at % 8
        path.write_bytes(mutant)
        with pytest.raises(RefusedError):
            model.load_state(path)


def test_damaged_files_with_a_valid_checksum_give_a_sound_state_or_a_sentence(
    model: Model, sound: bytes, path: Path
) -> None:
    taken = 0
    header = 8 + int.from_bytes(sound[:8], "little")
    near = [mark for mark in marks(sound) if mark < header + 64]
    for mutant in mutants(sound[:-32], random.Random(12), 1500, near):
        path.write_bytes(reseal(mutant))
        taken += _accepted(model, path)
    assert taken > 20  # weights of the state may be flipped into other finite numbers


_U32 = np.dtype("<u4")

_HOSTILE = {
    "tokens of no dimension": ("tokens", "U32", [], np.arange(1, dtype=_U32).tobytes()),
    "tokens as floats": ("tokens", "F32", [2], bytes(8)),
    "tokens outside the vocabulary": ("tokens", "U32", [1], b"\0\1\0\0"),
    "other tokens than the header counts": ("tokens", "U32", [0], b""),
    "penalties outside the vocabulary": ("penalty.ids", "U32", [1], b"\xff\xff\xff\xff"),
    "more penalties than counts": ("penalty.ids", "U32", [3], np.arange(3, dtype=_U32).tobytes()),
    "no counts": ("penalty.counts", "F32", [0], b""),
    "logits of another vocabulary": ("logits", "F32", [255], bytes(1020)),
    "logits as bytes": ("logits", "U8", [1024], bytes(1024)),
    "state of another shape": ("state.wkv", "F32", [2, 2, 256], bytes(4096)),
    "state in half precision": ("state.wkv", "F16", [2, 2, 16, 16], bytes(2048)),
    "transcript that is not UTF-8": ("transcript", "U8", [2], b"\xff\xfe"),
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_tensor_that_does_not_fit_is_refused(
    model: Model, sound: bytes, path: Path, name: str
) -> None:
    path.write_bytes(with_tensor(sound, *_HOSTILE[name]))
    with pytest.raises(RefusedError, match=str(path)):
        model.load_state(path)


def test_lists_have_one_dimension(model: Model, sound: bytes, path: Path) -> None:
    tokens = with_tensor(sound, "tokens", "U32", [2, 2], np.arange(4, dtype=_U32).tobytes())
    ids = with_tensor(sound, "penalty.ids", "U32", [1, 1], bytes(4))
    counts = with_tensor(ids, "penalty.counts", "F32", [1, 1], bytes(4))
    for content in (with_note(tokens, "pos", "2"), counts):
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="shape"):
            model.load_state(path)


def test_token_counted_twice_is_refused(model: Model, sound: bytes, path: Path) -> None:
    twice = with_tensor(sound, "penalty.ids", "U32", [2], np.array([5, 5], _U32).tobytes())
    path.write_bytes(with_tensor(twice, "penalty.counts", "F32", [2], bytes(8)))
    with pytest.raises(RefusedError, match="twice"):
        model.load_state(path)


@pytest.mark.parametrize("name", ["tokens", "state.wkv", "penalty.ids", "transcript", "tail"])
def test_missing_tensor_is_refused(model: Model, sound: bytes, path: Path, name: str) -> None:
    def rename(header: dict[str, object]) -> None:
        header["other"] = header.pop(name)

    path.write_bytes(with_header(sound, rename))
    with pytest.raises(RefusedError, match=name):
        model.load_state(path)


@pytest.mark.parametrize("note", ["model.arch", "model.weights", "tokenizer", "model.numerics"])
def test_missing_note_is_refused(model: Model, sound: bytes, path: Path, note: str) -> None:
    path.write_bytes(with_header(sound, lambda header: header["__metadata__"].pop(note)))
    for read in (model.load_state, inspect_state):
        with pytest.raises(RefusedError, match=note):
            read(path)


@pytest.mark.parametrize("position", ["", "-1", "x", "1e3", "9" * 5000])
def test_position_that_is_no_number_is_refused(
    model: Model, sound: bytes, path: Path, position: str
) -> None:
    path.write_bytes(with_note(sound, "pos", position))
    for read in (model.load_state, inspect_state):
        with pytest.raises(RefusedError):
            read(path)


_NESTED = "[" * 100_000

_SAMPLERS = [
    "", "null", "[]", "{}", "x", _NESTED, '{"sampling": {}, "seed": 1, "stream": 0}',
    '{"sampling": {"banned": [], "top_k": 2.5}, "seed": 1, "stream": 0}',
    '{"sampling": {"banned": [], "top_p": NaN}, "seed": 1, "stream": 0}',
    '{"sampling": {"banned": [], "temperature": "hot"}, "seed": 1, "stream": 0}',
    '{"sampling": {"banned": [], "presence": 1%s}, "seed": 1, "stream": 0}' % ("0" * 400),
    '{"sampling": {"banned": ["a"]}, "seed": 1, "stream": 0}',
    '{"sampling": {"banned": [], "color": 1}, "seed": 1, "stream": 0}',
    '{"sampling": {"banned": [], "order": []}, "seed": 1, "stream": 0}',
    '{"sampling": {"banned": []}, "seed": Infinity, "stream": 0}',
    '{"sampling": {"banned": []}, "seed": 1}',
]  # fmt: skip


@pytest.mark.parametrize("sampler", _SAMPLERS, ids=range(len(_SAMPLERS)))
def test_settings_that_make_no_sense_are_none(
    model: Model, sound: bytes, path: Path, sampler: str
) -> None:
    path.write_bytes(with_note(sound, "sampler", sampler))
    assert saved_sampler(model.load_state(path).attachments) is None


def test_settings_with_tokens_that_do_not_exist_are_harmless(
    model: Model, sound: bytes, path: Path
) -> None:
    sampler = '{"sampling": {"banned": [-1, -999, 3, 99999999999]}, "seed": -1, "stream": 1}'
    path.write_bytes(with_note(sound, "sampler", sampler))
    _check(model, model.load_state(path))
