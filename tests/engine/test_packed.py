"""Packed files: whole or refused, used in place, and the same as packing on the fly."""

from __future__ import annotations

import errno
import json
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints.mutate import mutants
from oracle.models import TINY, save_pth
from oracle.weights import SHAPES, VERSIONS, random_model, tuned_state

from rwkv_cli import files
from rwkv_cli.engine.modelfile import ModelFile, open_model
from rwkv_cli.engine.packed import DTYPES, LAYOUT
from rwkv_cli.engine.placement import Placement, packed_size
from rwkv_cli.errors import MismatchError, RefusedError, RwkvError, StorageError, UsageError
from rwkv_cli.files import remove_leftovers
from rwkv_cli.native.library import is_available

if not is_available():
    pytest.skip("there is no native library", allow_module_level=True)

from rwkv_cli.engine.native_weights import load_tensors, start_state
from rwkv_cli.engine.packing import packed_or_cached, write_packed
from rwkv_cli.native.pack import packed_bytes
from rwkv_cli.native.pool import Pool

PAGE, BLOCK = 4096, 64


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(2)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    return save_pth(random_model("v7", TINY), folder / "tiny.pth", "bf16")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RWKV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


@pytest.fixture
def packed(original: Path, tmp_path: Path, pool: Pool) -> Path:
    path = tmp_path / "tiny-int4.safetensors"
    write_packed(open_model(original), "int4", path, pool)
    return path


def forms(file: ModelFile, dtype: str | None, pool: Pool) -> list[tuple[Any, ...]]:
    """Load all tensors as things that can be compared."""
    return [
        (t.name, t.type, t.layout, t.rows, t.cols, bytes(t.data))
        for t in load_tensors(file, dtype, pool)
    ]


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Take a safetensors file apart: header and data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(path: Path, header: dict[str, Any], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_packed_file_holds_what_packing_on_the_fly_gives(
    version: str, dtype: str, tmp_path: Path, pool: Pool
) -> None:
    source = open_model(save_pth(random_model(version, SHAPES["odd"]), tmp_path / "m.pth"))
    path = tmp_path / "packed.safetensors"
    assert write_packed(source, dtype, path, pool) == []
    file = open_model(path)
    assert (file.arch.name, file.dims) == (source.arch.name, source.dims)
    assert (file.tokenizer, file.template) == (source.tokenizer, source.template)
    assert forms(file, None, pool) == forms(source, dtype, pool)
    assert forms(file, dtype, pool) == forms(source, dtype, pool)


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_in_a_packed_file_is_aligned_and_used_in_place(
    dtype: str, original: Path, tmp_path: Path, pool: Pool
) -> None:
    path = tmp_path / "packed.safetensors"
    write_packed(open_model(original), dtype, path, pool)
    header, data = parts(path)
    assert (path.stat().st_size - len(data)) % PAGE == 0
    spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    assert all(begin % BLOCK == 0 for begin, _ in spans)
    file = open_model(path)
    mapped = np.frombuffer(next(iter(file.checkpoint.tensors.values())).data, np.uint8).base
    for tensor in load_tensors(file, None, pool):
        assert isinstance(tensor.data, memoryview)
        assert np.frombuffer(tensor.data, np.uint8).base.obj is mapped.obj


def test_any_reader_of_safetensors_can_open_a_packed_file(packed: Path) -> None:
    from safetensors import safe_open

    with safe_open(packed, "numpy") as file:
        assert set(file.keys()) == set(open_model(packed).checkpoint.tensors)
        assert file.get_tensor("blocks.0.ln1.weight").shape == (TINY.width,) or TINY.width % 16


def test_states_of_the_original_fit_the_packed_model(original: Path, packed: Path) -> None:
    assert open_model(packed).fingerprint() == open_model(original).fingerprint()


def test_a_tuned_starting_state_is_kept(tmp_path: Path, pool: Pool) -> None:
    tensors = random_model("v6", TINY) | tuned_state(TINY)
    source = open_model(save_pth(tensors, tmp_path / "m.pth", "bf16"))
    write_packed(source, "int8", tmp_path / "p.safetensors", pool)
    before, after = start_state(source), start_state(open_model(tmp_path / "p.safetensors"))
    assert len(before) == TINY.layers
    for layer, state in before.items():
        assert np.array_equal(state, after[layer])
    names = {t.name for t in load_tensors(source, None, pool)}
    assert not any(name.endswith("time_state") for name in names)


def test_a_tensor_that_codes_would_spoil_stays_in_16_bits(tmp_path: Path, pool: Pool) -> None:
    tensors = random_model("v7", TINY)
    tensors["blocks.0.att.key.weight"][3, 5] = np.inf
    source = open_model(save_pth(tensors, tmp_path / "m.pth", "bf16"))
    path = tmp_path / "p.safetensors"
    kept = write_packed(source, "int8", path, pool)
    assert kept == ["blocks.0.att.key.weight"]
    heavy = np.random.default_rng(0).standard_t(3, (TINY.width, TINY.ffn))
    tensors["blocks.1.ffn.value.weight"] = heavy.astype(np.float32)
    source = open_model(save_pth(tensors, tmp_path / "m.pth", "bf16"))
    kept = write_packed(source, "int4", path, pool)
    assert kept == ["blocks.0.att.key.weight", "blocks.1.ffn.value.weight"]
    file = open_model(path)
    assert file.packed
    assert file.packed.kept() == kept
    by_name = {t[0]: t for t in forms(file, None, pool)}
    exact = {t[0]: t for t in forms(source, "bf16", pool)}
    assert all(by_name[name] == exact[name] for name in kept)


def test_quantizing_twice_is_refused(packed: Path, tmp_path: Path, pool: Pool) -> None:
    with pytest.raises(RefusedError, match="packed already"):
        write_packed(open_model(packed), "int8", tmp_path / "again.safetensors", pool)
    with pytest.raises(UsageError, match="packed as int4, not int8"):
        load_tensors(open_model(packed), "int8", pool)


@pytest.mark.parametrize("layout", ["rows", "panels"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_are_those_of_the_library(dtype: str, layout: str) -> None:
    for rows in (1, 15, 16, 32, 33, 127, 128, 129, 300, 2048):
        for cols in (1, 31, 64, 65, 700):
            place = Placement("x", "matrix", layout, rows, cols, False, (rows, cols))
            assert packed_size(place, dtype) == packed_bytes(dtype, layout, rows, cols)


Change = Callable[[dict[str, Any]], object]

HOSTILE: dict[str, tuple[Change, type[RwkvError]]] = {
    "another layout": (lambda n: n.update(layout="2"), MismatchError),
    "no layout": (lambda n: n.pop("layout"), MismatchError),
    "another precision": (lambda n: n.update(dtype="int8"), RefusedError),
    "an unknown precision": (lambda n: n.update(dtype="int3"), RefusedError),
    "no fingerprint": (lambda n: n.pop("weights"), RefusedError),
    "a fingerprint to print": (lambda n: n.update(weights="sampled:\x1b[2J"), RefusedError),
    "no tensors": (lambda n: n.pop("tensors"), RefusedError),
    "no JSON": (lambda n: n.update(tensors="[" * 100_000), RefusedError),
    "a list": (lambda n: n.update(tensors="[]"), RefusedError),
    "an empty table": (lambda n: n.update(tensors="{}"), RefusedError),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_notes_that_are_wrong_are_refused(what: str, packed: Path) -> None:
    change, expected = HOSTILE[what]
    header, data = parts(packed)
    change(header["__metadata__"])
    with pytest.raises(expected):
        open_model(put_together(packed, header, data))


ENTRIES: dict[str, Any] = {
    "head.weight": [
        ["int4", [256, 32], 0.01], ["int8", [256, 33], 0.01], ["int8", [1 << 40, 1 << 40], 0.01],
        ["int8", [256, 32, 1, 1, 1, 1, 1, 1, 1], 0.01], ["int8", [-256, -32], 0.01],
        ["int8", [256, True], 0.01], ["int8", [0, 32], 0.01], ["int8", [256, 32], "0.01"],
        ["int8", [256, 32], -1], ["int8", [256, 32], float("nan")], ["int8", [256, 32]],
        ["bf16", [256, 32], None], [8, [256, 32], None], "int8", None, {},
    ],
    "blocks.0.ln1.weight": [["bf16", [32], None], ["fp32", [64], None], ["fp32", [], None]],
    "emb.weight": [["int8", [256, 32], None], ["fp32", [256, 32], None]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "entry"), [(name, entry) for name, list_ in ENTRIES.items() for entry in list_]
)
def test_an_entry_that_does_not_fit_its_tensor_is_refused(
    name: str, entry: object, packed: Path
) -> None:
    header, data = parts(packed)
    table = json.loads(header["__metadata__"]["tensors"])
    table[name] = entry
    header["__metadata__"]["tensors"] = json.dumps(table)
    with pytest.raises(RefusedError):
        open_model(put_together(packed, header, data))


def test_a_tensor_that_the_version_does_not_know_is_refused(packed: Path) -> None:
    header, data = parts(packed)
    table = json.loads(header["__metadata__"]["tensors"])
    table["blocks.0.att.extra"] = ["fp32", [16], None]
    header["__metadata__"]["tensors"] = json.dumps(table)
    span = [len(data), len(data) + 64]
    header["blocks.0.att.extra"] = {"dtype": "F32", "shape": [16], "data_offsets": span}
    with pytest.raises(RefusedError, match=r"has no tensor blocks\.0\.att\.extra"):
        open_model(put_together(packed, header, data + bytes(64)))


def test_damaged_files_are_refused_or_keep_their_sizes(
    packed: Path, tmp_path: Path, pool: Pool
) -> None:
    content = packed.read_bytes()
    start = int.from_bytes(content[:8], "little") + 8
    sizes = [(t.name, t.rows, t.cols) for t in load_tensors(open_model(packed), None, pool)]
    marks = [0, *range(8, start, 61)]
    refused = 0
    for mutant in mutants(content, random.Random(0), 400, marks):
        path = tmp_path / "mutant.safetensors"
        path.write_bytes(mutant)
        try:
            file = open_model(path)
        except (RefusedError, MismatchError):
            refused += 1
            continue
        if file.packed:
            found = load_tensors(file, None, pool)
            assert [(t.name, t.rows, t.cols) for t in found] == sizes
            assert all(
                len(t.data) == packed_bytes(_NAMES[t.type], _LAYOUTS[t.layout], t.rows, t.cols)
                for t in found
            )
    assert refused > 100


_NAMES = {0: "fp32", 1: "bf16", 2: "fp16", 3: "int8", 4: "int4"}
_LAYOUTS = {0: "rows", 1: "panels"}


def test_being_stopped_leaves_nothing(original: Path, tmp_path: Path, pool: Pool) -> None:
    path = tmp_path / "out" / "packed.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"old")

    def stop(nbytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packed(open_model(original), "int8", path, pool, stop)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


class FullDisk(BufferedWriter):
    """A file on a disk that has room for one page."""

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > PAGE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def full_disk(path: Path, mode: int) -> BufferedWriter:
    return FullDisk(path.open("xb", buffering=0))


def test_a_full_disk_leaves_nothing(
    original: Path, tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_new_file", full_disk)
    path = tmp_path / "out" / "packed.safetensors"
    path.parent.mkdir()
    with pytest.raises(StorageError, match="no space left"):
        write_packed(open_model(original), "int8", path, pool)
    assert os.listdir(path.parent) == []


def test_the_cache_is_filled_once_and_used_in_place(
    original: Path, cache: Path, pool: Pool
) -> None:
    source, done = open_model(original), []
    first, tensors = packed_or_cached(source, "int8", pool, done.append)
    assert sum(done) == sum(t.nbytes for t in source.checkpoint.tensors.values())
    written = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    second, again = packed_or_cached(source, "int8", pool)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == written
    assert first.checkpoint.path == second.checkpoint.path == next(iter(written))
    assert [bytes(t.data) for t in tensors] == [bytes(t.data) for t in again]
    assert all(isinstance(t.data, memoryview) for t in again)


def test_the_cache_knows_weights_by_their_content(
    original: Path, tmp_path: Path, cache: Path, pool: Pool
) -> None:
    packed_or_cached(open_model(original), "int8", pool)
    moved = tmp_path / "renamed.pth"
    moved.write_bytes(original.read_bytes())
    packed_or_cached(open_model(moved), "int8", pool)
    assert len(os.listdir(cache)) == 1
    other = save_pth(random_model("v7", TINY, seed=1), tmp_path / original.name, "bf16")
    packed_or_cached(open_model(other), "int8", pool)
    packed_or_cached(open_model(other), "int4", pool)
    assert len(os.listdir(cache)) == 3


@pytest.mark.parametrize("damage", [b"", b"not a model", None])
def test_a_damaged_file_in_the_cache_is_made_again(
    damage: bytes | None, original: Path, cache: Path, pool: Pool
) -> None:
    source = open_model(original)
    packed_or_cached(source, "int8", pool)
    path = next(cache.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-64] if damage is None else damage)
    file, tensors = packed_or_cached(source, "int8", pool)
    assert path.read_bytes() == whole
    assert [bytes(t.data) for t in tensors] == [f[-1] for f in forms(source, "int8", pool)]
    assert file.packed


def test_without_room_in_the_cache_a_model_runs_from_memory(
    original: Path, cache: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_new_file", full_disk)
    source, said = open_model(original), []
    file, tensors = packed_or_cached(source, "int8", pool, tell=said.append)
    assert len(said) == 1
    assert "no space left" in said[0]
    assert file is source
    assert [bytes(t.data) for t in tensors] == [f[-1] for f in forms(source, "int8", pool)]
    assert os.listdir(cache) == []


def test_two_at_once_fill_the_cache_together(original: Path, cache: Path) -> None:
    def one(_: int) -> list[bytes]:
        return [bytes(t.data) for t in packed_or_cached(open_model(original), "int8", Pool(1))[1]]

    with ThreadPoolExecutor(4) as runners:
        results = list(runners.map(one, range(4)))
    assert all(result == results[0] for result in results)
    assert len(os.listdir(cache)) == 1


def test_what_a_killed_process_left_goes_away_after_a_day(cache: Path) -> None:
    cache.mkdir(parents=True)
    for name, age in (("old", 90_000), ("new", 10)):
        path = cache / f".{name}.safetensors.1-0123456789ab.tmp"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    remove_leftovers(cache)
    assert os.listdir(cache) == [".new.safetensors.1-0123456789ab.tmp"]


def test_the_layout_version_is_the_one_these_tests_know() -> None:
    assert LAYOUT == "1"
