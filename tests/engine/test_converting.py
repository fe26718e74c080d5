"""Models written in another format are the same models, for every program that reads them."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.models import DTYPES, TINY, distance, save_pth
from oracle.reference import reference_logits
from oracle.weights import VERSIONS, Shape, random_model, tuned_state

from rwkv_cli import sizes
from rwkv_cli.checkpoints.precision import FLOATS, plain_bytes
from rwkv_cli.engine.converting import outgoing, write_model
from rwkv_cli.engine.modelfile import ModelFile, open_model
from rwkv_cli.errors import RefusedError, StorageError, UsageError

Numbers = dict[str, tuple[str, tuple[int, ...], bytes]]


def _convert(path: Path, kind: str, to: Path, dtype: str | None = None) -> Path:
    file = open_model(path)
    counted: list[int] = []
    model = outgoing(file, kind, dtype)
    write_model(file, model, to, counted.append)
    assert sum(counted) == model.nbytes
    return to / "model.safetensors" if kind == "hf" else to


def _numbers(path: Path) -> Numbers:
    tensors = open_model(path).checkpoint.tensors.values()
    return {t.name: (t.dtype, t.shape, bytes(t.plain().data)) for t in tensors}


_SHAPES = st.builds(
    Shape, st.integers(1, 3), st.integers(1, 3), st.sampled_from([4, 8]), st.integers(1, 20),
    st.integers(2, 40), st.integers(1, 5),
)  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@given(shape=_SHAPES, dtype=st.sampled_from(sorted(DTYPES)), tuned=st.booleans())
@settings(max_examples=4, deadline=None)
def test_a_round_trip_through_all_formats_changes_no_bit(
    version: str,
    shape: Shape,
    dtype: str,
    tuned: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    model = random_model(version, shape)
    if tuned and version != "v4":
        model |= tuned_state(shape)
    first = save_pth(model, folder / "first.pth", dtype)
    wanted = _numbers(first)
    path = _convert(first, "safetensors", folder / "second.safetensors")
    assert _numbers(path) == wanted
    if version in ("v4", "v7") and not (tuned and version == "v7"):
        path = _convert(path, "hf", folder / "third")
        assert _numbers(path) == wanted
    path = _convert(path, "pth", folder / "last.pth")
    assert _numbers(path) == wanted
    loaded = torch.load(path, weights_only=True)
    before = torch.load(first, weights_only=True)
    assert all(torch.equal(loaded[name], before[name]) for name in before)
    assert open_model(path).fingerprint() == open_model(first).fingerprint()


def test_the_reference_package_reads_what_is_written(tmp_path: Path) -> None:
    shape = Shape(layers=2, heads=2, size=64, ffn=448, vocab=77)
    first = save_pth(random_model("v7", shape), tmp_path / "first.pth")
    second = _convert(_convert(first, "safetensors", tmp_path / "x.safetensors"), "pth",
                      tmp_path / "second.pth")  # fmt: skip
    jobs = [(first, [1, 2, 3]), (second, [1, 2, 3])]
    logits = reference_logits(jobs, v7=True)
    assert np.array_equal(*logits)


@pytest.mark.parametrize("dtype", DTYPES)
def test_another_precision_is_what_torch_makes_of_every_tensor(dtype: str, tmp_path: Path) -> None:
    model = random_model("v7", TINY)
    first = save_pth(model, tmp_path / "first.pth")
    second = _convert(first, "pth", tmp_path / "second.pth", dtype)
    wanted = save_pth(model, tmp_path / "wanted.pth", dtype)
    assert _numbers(second) == _numbers(wanted)
    assert outgoing(open_model(first), "pth", dtype).rounded == (0 if dtype == "fp32" else 72)
    assert outgoing(open_model(first), "pth", dtype).dtypes == [dtype]


def test_a_folder_tells_the_sizes_of_the_model_and_brings_its_tokenizer(
    tmp_path: Path, shared_data: Path
) -> None:
    shape = Shape(layers=2, heads=2, size=16, ffn=64, vocab=50277)
    path = tmp_path / "rwkv-ctx4096.pth"
    save_pth(random_model("v4", shape), path, "bf16")
    (tmp_path / "20B_tokenizer.json").write_bytes((shared_data / "20B_tokenizer.json").read_bytes())
    _convert(path, "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    told = {"hidden_size": 32, "vocab_size": 50277, "num_hidden_layers": 2, "model_type": "rwkv",
            "intermediate_size": 64, "context_length": 4096, "torch_dtype": "bfloat16"}  # fmt: skip
    assert {key: config[key] for key in told} == told
    names = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "hf").iterdir()} == names


@pytest.mark.parametrize("version", ["v4", "v7"])
def test_transformers_runs_the_folder(version: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    if version == "v7" and not hasattr(transformers, "Rwkv7ForCausalLM"):
        pytest.skip("this release of transformers has no RWKV-7")
    shape = Shape(layers=2, heads=2, size=64, ffn=448, vocab=77)
    path = save_pth(random_model(version, shape), tmp_path / "m.pth")
    _convert(path, "hf", tmp_path / "hf")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", output_loading_info=True, dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        theirs = model(torch.tensor([[1, 2, 3]])).logits[0].numpy()
    ours = reference_logits([(path, [1, 2, 3])], v7=version == "v7")[0]
    assert distance(theirs, ours) < 1e-5


@pytest.mark.parametrize("version", ["v5.0", "v5.2", "v6"])
def test_what_transformers_has_no_class_for_is_refused(version: str, tmp_path: Path) -> None:
    path = save_pth(random_model(version, TINY), tmp_path / "m.pth")
    with pytest.raises(UsageError, match="classes for RWKV-4 and 7"):
        outgoing(open_model(path), "hf", None)
    save_pth(random_model("v7", TINY) | tuned_state(TINY), path)
    with pytest.raises(UsageError, match="has a tuned initial state"):
        outgoing(open_model(path), "hf", None)


@pytest.fixture
def small(tmp_path: Path) -> ModelFile:
    return open_model(save_pth(random_model("v7", TINY), tmp_path / "small.pth"))


@pytest.mark.parametrize("kind", ["pth", "safetensors", "hf"])
@pytest.mark.parametrize("there", [True, False])
def test_an_interrupted_conversion_leaves_what_was_there(
    kind: str, there: bool, small: ModelFile, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "target"
    target.parent.mkdir()
    if there:
        write_model(small, outgoing(small, kind, "bf16"), target)
    before = {p: p.read_bytes() for p in target.parent.rglob("*") if p.is_file()}
    done = 0

    def interrupt(_: int) -> None:
        nonlocal done
        done += 1
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(small, outgoing(small, kind, None), target, interrupt)
    assert {p: p.read_bytes() for p in target.parent.rglob("*") if p.is_file()} == before
    assert [p.name for p in target.parent.iterdir()] == (["target"] if there else [])
    write_model(small, outgoing(small, kind, None), target)
    assert [p.name for p in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("kind", ["pth", "safetensors", "hf"])
def test_a_disk_that_is_too_small_is_noticed_before_a_byte_is_written(
    kind: str, small: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda _: usage(10, 0, 10))
    with pytest.raises(StorageError, match="are free in"):
        write_model(small, outgoing(small, kind, None), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_number_that_does_not_fit_leaves_no_file(tmp_path: Path) -> None:
    tensors = random_model("v7", TINY)
    tensors["head.weight"][3, 4] = 70000
    small = open_model(save_pth(tensors, tmp_path / "m.pth"))
    with pytest.raises(RefusedError, match=r"head\.weight has numbers too large for F16"):
        write_model(small, outgoing(small, "pth", "fp16"), tmp_path / "out.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]


def test_predicted_bytes_are_those_of_the_file(small: ModelFile, tmp_path: Path) -> None:
    for dtype in FLOATS:
        model = outgoing(small, "safetensors", dtype)
        write_model(small, model, tmp_path / "x")
        header = (tmp_path / "x").stat().st_size - model.nbytes
        assert 0 < header < 20_000
        assert model.nbytes == sum(map(plain_bytes, model.tensors))
