"""The native engine in use: beside torch, in several threads, refusing what it cannot run."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from oracle.models import TINY, distance, load, needs_native, random_tokens, save_pth
from oracle.weights import VERSIONS, Shape, random_model

import rwkv_cli.engine.load
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.native_engine import NativeEngine
from rwkv_cli.engine.native_weights import load_tensors
from rwkv_cli.engine.state import State
from rwkv_cli.errors import UsageError
from rwkv_cli.native import largepages
from rwkv_cli.native.library import NativeError, UnavailableError
from rwkv_cli.native.pool import Pool

pytestmark = needs_native

Tiny = Callable[[str, str], Model]


@pytest.fixture
def native(tiny: Tiny) -> Model:
    return tiny("v7", "native")


def _arrays(model: Model, state: State) -> list[np.ndarray]:
    return [state.arrays[name] for name in model.arch.state]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("order", [("torch", "native"), ("native", "torch")], ids="-to-".join)
def test_a_state_moves_from_one_engine_to_the_other(
    tiny: Tiny, version: str, order: tuple[str, str], tmp_path: Path
) -> None:
    first, second = (tiny(version, engine) for engine in order)
    tokens = random_tokens(first, 60)
    _, state = first.prefill(tokens[:30])
    expected, wanted = first.prefill(tokens[30:], state)
    logits, moved = second.prefill(tokens[30:], state)
    assert distance(logits, expected) < 1e-5
    assert all(distance(moved.arrays[n], a) < 1e-5 for n, a in wanted.arrays.items())
    back, _ = first.prefill(tokens[:9], moved)
    assert distance(back, first.prefill(tokens[:9], wanted)[0]) < 1e-5


@pytest.mark.parametrize("version", ["v4", "v7"])
def test_arrays_of_a_state_in_pieces_are_read_right(tiny: Tiny, version: str) -> None:
    model = tiny(version, "native")
    _, state = model.prefill([1, 2, 3])
    turned, wide = state.clone(), state.clone()
    for name, array in state.arrays.items():
        turned.arrays[name] = np.asfortranarray(array)
        wide.arrays[name] = array.astype(np.float64)
    expected = model.engine.decode([4], [state])
    for other in (turned, wide):
        assert np.array_equal(model.engine.decode([4], [other]), expected)
        assert all(np.array_equal(other.arrays[n], a) for n, a in state.arrays.items())


def test_the_library_is_given_no_array_in_pieces(native: Model) -> None:
    state = native.zero_state()
    arrays = _arrays(native, state)
    read_only = arrays[0].copy()
    read_only.flags.writeable = False
    for bad in (np.asfortranarray(arrays[1]), arrays[1].astype(np.float64), read_only):
        with pytest.raises(NativeError, match="in one writable piece"):
            native.engine.model.forward([1], [1], [[arrays[0], bad, arrays[2]]], [None])
    for bad in (np.empty((1, 256), np.float32), np.empty(255, np.float32)):
        with pytest.raises(NativeError, match="logits of this model are 256 numbers"):
            native.engine.model.forward([1], [1], [arrays], [bad])
    with pytest.raises(NativeError, match="in one writable piece"):
        native.engine.model.forward([1], [1], [arrays], [np.empty(512, np.float32)[::2]])


def test_state_of_other_sizes_is_refused(native: Model, tmp_path: Path) -> None:
    shape = Shape(layers=1, heads=2, size=16, ffn=64, vocab=256)
    smaller = load(save_pth(random_model("v7", shape), tmp_path / "s.pth"), engine="native")
    with pytest.raises(NativeError, match="shape"):
        native.engine.decode([1], [smaller.zero_state()])


@pytest.mark.parametrize("token", [-1, 256, 2**31 - 1])
def test_token_outside_the_vocabulary_is_refused_and_changes_nothing(
    native: Model, token: int
) -> None:
    _, state = native.prefill([1, 2])
    before = [array.tobytes() for array in _arrays(native, state)]
    with pytest.raises(NativeError, match=f"token {token} is outside the vocabulary of 256"):
        native.engine.model.forward([1, token], [2], [_arrays(native, state)], [None])
    assert [array.tobytes() for array in _arrays(native, state)] == before


@pytest.mark.parametrize("lengths", [[], [0], [-1], [1], [3], [1, 1], [3, -1]], ids=str)
def test_lengths_that_do_not_fit_are_refused(native: Model, lengths: list[int]) -> None:
    states = [_arrays(native, native.zero_state()) for _ in lengths]
    tokens = [1, 2] if lengths else []
    with pytest.raises(NativeError):
        native.engine.model.forward(tokens, lengths, states[:1], [None] * len(lengths))
    with pytest.raises(NativeError):
        native.engine.model.forward([1, 2], [2], [states[0][:2] if states else []], [None])


@pytest.mark.parametrize(
    "name", ["emb.weight", "head.weight", "blocks.0.ln0.bias", "blocks.1.att.w2", "ln_out.weight"]
)
def test_missing_tensor_is_named(native: Model, name: str) -> None:
    file, pool = open_model(native.path), Pool(1)
    tensors = [t for t in load_tensors(file, None, pool) if t.name != name]
    with pytest.raises(NativeError, match=f"tensor {name} is missing"):
        NativeEngine(tensors, file.arch, file.dims, pool, dtype="fp32")


@pytest.mark.parametrize(
    ("heads", "size", "words"), [(1, 16, "multiples of 32"), (4, 8, "heads of 8 channels")]
)
def test_sizes_without_kernels_run_on_torch_with_a_notice(
    tmp_path: Path, heads: int, size: int, words: str
) -> None:
    shape = Shape(layers=1, heads=heads, size=size, ffn=64, vocab=256)
    path = save_pth(random_model("v7", shape), tmp_path / "odd.pth")
    model = load(path, engine=None)
    assert model.engine.numerics == "torch cpu fp32"
    assert words in str(model.notice)
    assert load(path, engine="torch").notice is None
    for dtype, engine in ((None, "native"), ("int8", None)):
        with pytest.raises(UsageError, match=words) as refused:
            load(path, dtype, engine=engine)
        assert refused.value.hint == "--engine torch"


def test_without_the_library_torch_runs_with_a_notice(
    native: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rwkv_cli.engine.load, "unavailable_reason", lambda: "it is gone")
    model = load(native.path, engine=None)
    assert model.engine.numerics == "torch cpu fp32"
    assert "it is gone" in str(model.notice)
    for dtype, engine in ((None, "native"), ("int8", None)):
        with pytest.raises(UnavailableError, match="it is gone"):
            load(native.path, dtype, engine=engine)


def test_native_is_what_a_cpu_uses(native: Model) -> None:
    model = load(native.path, engine=None)
    assert model.engine.numerics == native.engine.numerics
    assert model.notice is None


def _answers(model: Model, seed: int) -> list[bytes]:
    """Logits along a text of its own."""
    state, rows = model.zero_state(), []
    rows.append(model.advance(random_tokens(model, 150, seed), state).tobytes())
    for token in random_tokens(model, 60, seed + 1):
        rows.append(model.engine.decode([token], [state])[0].tobytes())
    return rows


def test_threads_of_python_share_a_model(tmp_path: Path) -> None:
    path = save_pth(random_model("v7", TINY), tmp_path / "model.pth")
    model = load(path, engine="native", threads=2)
    expected = [_answers(model, seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(_answers, [model] * 4, range(4))) == expected


@pytest.mark.parametrize("shared", [True, False], ids=["one-pool", "two-pools"])
def test_two_models_run_at_once(tiny: Tiny, shared: bool) -> None:
    pool = Pool(2)
    engines = []
    for version in ("v4", "v7"):
        file, own = open_model(tiny(version, "native").path), pool if shared else Pool(2)
        tensors = load_tensors(file, None, own)
        engines.append(NativeEngine(tensors, file.arch, file.dims, own, dtype="fp32"))

    def rows(engine: NativeEngine) -> list[bytes]:
        state = engine.zero_state()
        return [engine.decode([token], [state]).tobytes() for token in random_tokens(256, 200)]

    expected = [rows(engine) for engine in engines]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(rows, engines)) == expected


@pytest.mark.parametrize("extra", [[], ["--engine", "native"], ["--dtype", "int4"]], ids=str)
def test_generating_imports_no_torch(native: Model, extra: list[str], tmp_path: Path) -> None:
    program = "import sys; from rwkv_cli.__main__ import main; main()"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    env |= {"RWKV_DATA_DIR": str(tmp_path), "RWKV_CONFIG": str(tmp_path / "config.toml")}
    words = ["generate", "Once", "--model", "demo", "--max-tokens", "8", "--seed", "1", *extra]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, *words],
        env=env, capture_output=True, text=True, timeout=60,
        cwd=tmp_path,  # away from the checkout: the installed package is what is tested
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "rwkv_cli.engine.native_engine" in imported
    assert not any(name.partition(".")[0] == "torch" for name in imported)
    assert len(done.stdout) > 4


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are moved on Linux alone")
def test_weights_move_to_large_pages_unchanged_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (100 << 20) + 12_345
    path, rng = tmp_path / "weights", np.random.default_rng(1)
    with path.open("wb") as file:
        file.truncate(size)
        for start in range(0, size - 8192, 1 << 20):
            file.seek(start + int(rng.integers(0, 4096)))
            file.write(rng.bytes(4096))
    monkeypatch.setattr(largepages, "free_memory", lambda: 4 * size)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        view, wanted = memoryview(mapped), np.fromfile(path, np.uint8)
        mine = np.frombuffer(view, np.uint8)
        moving = largepages.move_in_background([view[100:], view[: 50 << 20]])
        assert moving is not None
        looks = 0
        while moving.is_alive() or looks < 2:
            assert np.array_equal(mine, wanted)
            looks += 1
        moving.join()
        still = _mapped_bytes(path)
        del mine
        view.release()
        if still == size + -size % mmap.PAGESIZE:
            pytest.skip("this system does not move pages")
        assert still < 8 << 20  # the parts of large pages at both ends
    assert np.array_equal(np.fromfile(path, np.uint8), wanted)


def _mapped_bytes(path: Path) -> int:
    """Bytes of this process's memory that are pages of a file."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith(str(path))]
    return sum(int(end, 16) - int(start, 16) for start, end in spans)
