"""From a strategy to the engine of a card that works, and its self-test; the card is a fake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import cuda_host
from oracle.cuda_card import (
    PROMPT,
    SMALL,
    Card,
    failing,
    falls_back,
    on_card,
)
from oracle.models import distance, load, save_pth
from oracle.weights import random_model

from rwkv_cli.engine.cuda import load as cuda_load
from rwkv_cli.engine.cuda.device import overlap_pays
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.selftest import Verdict
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import LimitError, RefusedError, StorageError, UsageError
from rwkv_cli.native.cuda import cache
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.library import UnavailableError, is_available
from rwkv_cli.native.pool import Pool

if cuda_host.compiler() is None or not is_available():
    pytest.skip("there is no C++ compiler, or no native library", allow_module_level=True)


# With everything there


@pytest.mark.parametrize(
    ("stored", "asked", "used", "types"),
    [
        ("fp32", None, "fp32", 1),
        ("bf16", None, "fp16", 4),
        ("fp16", None, "fp16", 4),
        ("bf16", "bf16", "bf16", 2),
        ("fp32", "fp16", "fp16", 4),
        ("fp16", "fp32", "fp32", 1),
        ("bf16", "int8", "int8", 4 + 8),
        ("fp32", "int4", "int4", 4 + 8 + 16),
        ("int8", None, "int8", 4 + 8),
        ("int4", "int4", "int4", 4 + 8 + 16),
    ],
)
def test_a_card_runs_the_precision_that_was_asked_for_or_the_one_that_suits_the_file(
    card: Card,
    judged: list[str],
    files: dict[str, Path],
    stored: str,
    asked: str | None,
    used: str,
    types: int,
) -> None:
    model = on_card(files[stored], asked)
    assert isinstance(model.engine, CudaEngine)
    assert model.engine.numerics == model.identity.numerics == f"cuda hostx3 {used}"
    assert (model.engine.weights.dtype, judged) == (used, [f"v7 32 {used}"])
    (compiled,) = card.fakes.compilations()
    assert f"-DRWKV_TYPES={types} " in compiled
    expected, _ = load(files["fp32"], "fp32").prefill(PROMPT[:2])
    logits, _ = model.prefill(PROMPT[:2])
    assert distance(logits, expected) < (0.3 if used.startswith("int") else 1e-2)


def test_a_packed_file_has_one_precision(card: Card, files: dict[str, Path]) -> None:
    for dtype in ("int4", "fp16"):
        with pytest.raises(UsageError, match=f"is packed as int8, not {dtype}"):
            on_card(files["int8"], dtype)


def test_a_card_may_be_named_by_its_number(
    card: Card, judged: list[str], files: dict[str, Path]
) -> None:
    path = files["fp32"]
    model = load_model(path, Strategy("cuda:0"), tokenizer="bytes")
    assert model.engine.numerics == "cuda hostx3 fp32"
    with pytest.raises(UsageError, match="there is no cuda:1 here"):
        load_model(path, Strategy("cuda:1"), tokenizer="bytes")


def test_weights_are_packed_by_as_many_threads_as_on_a_cpu(
    card: Card, judged: list[str], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(cuda_load, "Pool", lambda threads: counts.append(threads) or Pool(1))
    monkeypatch.setattr("rwkv_cli.engine.load.usual_threads", lambda path: 5)
    on_card(files["fp32"], "int8")
    on_card(files["fp32"], "int8", threads=3)
    on_card(files["fp32"], "fp16")
    assert counts == [5, 3]


def test_numbers_too_large_for_fp16_are_refused_before_they_are_infinite(
    card: Card, judged: list[str], tmp_path: Path
) -> None:
    tensors = random_model("v7", SMALL)
    tensors["head.weight"] = tensors["head.weight"] * 1e7
    path = save_pth(tensors, tmp_path / "large.pth", "bf16")
    with pytest.raises(RefusedError, match=r"tensor head\.weight has numbers too large") as refused:
        on_card(path)
    assert refused.value.hint == "--dtype bf16"
    assert on_card(path, "bf16").engine.numerics == "cuda hostx3 bf16"


# The self-test


def test_kernels_are_compared_with_torch_once(
    card: Card, judged: list[str], files: dict[str, Path]
) -> None:
    first, second = on_card(files["fp32"]), on_card(files["fp32"])
    assert first.notice is not None
    assert first.notice.startswith("CUDA kernels: compiled for sm_90 in ")
    assert second.notice is None
    assert judged == ["v7 32 fp32"]


@pytest.mark.parametrize("change", ["dtype", "version", "card", "compiler", "torch", "name"])
def test_what_has_changed_is_compared_again(
    card: Card,
    judged: list[str],
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    on_card(files["fp32"])
    if change == "card":
        card.fakes.behave(cuda_sm=120)
    elif change == "compiler":
        card.fakes.behave(nvrtc_version=12)
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0")
    elif change == "name":
        monkeypatch.setattr("oracle.cuda_device.HostDevice.name", "another")
    path = files["v6" if change == "version" else "fp32"]
    for _ in range(2):
        on_card(path, "bf16" if change == "dtype" else None)
    assert len(judged) == 2


def test_a_remembered_result_that_is_damaged_is_none(
    card: Card, judged: list[str], files: dict[str, Path]
) -> None:
    on_card(files["fp32"])
    for path in card.cache:
        path.write_bytes(path.read_bytes()[:-1])
    assert "compiled" in str(on_card(files["fp32"]).notice)
    assert len(judged) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    card: Card, judged: list[str], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, image: bytes) -> None:
        raise StorageError("cannot write the cache: read-only file system")

    monkeypatch.setattr(cache, "write", refuse)
    for _ in range(2):
        model = on_card(files["fp32"])
        assert model.engine.numerics == "cuda hostx3 fp32"
        assert str(model.notice).endswith(
            ", but not kept: cannot write the cache: read-only file system"
        )
    assert len(judged) == 2


def test_right_kernels_pass_and_are_remembered(
    card: Card, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = on_card(files["fp32"])
    monkeypatch.setattr(cuda_load, "judge", None)  # whoever calls it fails
    model = on_card(files["fp32"])
    assert (model.engine.batches, bool(model.engine.chunks)) == ((1, 2, 4, 8), True)
    assert first.engine.numerics == model.engine.numerics


def test_kernels_that_are_right_one_after_the_other_alone_run_so(
    card: Card, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def judge(device: Any, *_: object) -> Verdict:
        seen.append(device.programmatic)
        right = not device.programmatic
        return Verdict(right, right, None if right else "they disagree")

    monkeypatch.setattr("oracle.cuda_device.HostDevice.programmatic", True)
    monkeypatch.setattr(cuda_load, "judge", judge)
    for _ in range(2):  # the second time from memory
        assert not on_card(files["fp32"]).engine.device.programmatic
    assert seen == [True, False]


def test_kernels_overlap_where_that_was_measured_to_be_faster(
    card: Card, judged: list[str], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = {(width, dtype) for width in (768, 2560, 4096) for dtype in ("fp16", "int8", "int4")}
    assert {each for each in wide if overlap_pays(*each)} == {
        (768, "fp16"), (768, "int8"), (2560, "fp16"), (2560, "int8"), (4096, "fp16")
    }  # fmt: skip
    monkeypatch.setattr("oracle.cuda_device.HostDevice.programmatic", True)
    assert on_card(files["fp32"]).engine.device.programmatic
    monkeypatch.setattr(cuda_load, "overlap_pays", lambda width, dtype: False)
    for _ in range(2):  # what runs otherwise is compared anew, once
        assert not on_card(files["fp32"]).engine.device.programmatic
    assert judged == ["v7 32 fp32"] * 2


def test_wrong_kernels_are_done_without_and_named(card: Card, files: dict[str, Path]) -> None:
    card.broken = "value_1"
    model = on_card(files["fp32"])
    assert isinstance(model.engine, CudaEngine)
    assert model.notice is not None
    words = "Some CUDA kernels are not used: the v7 kernels disagree with torch in decode by "
    assert model.notice.startswith(words)
    assert "\n" not in model.notice
    expected, _ = load(files["fp32"]).prefill(PROMPT)
    assert distance(model.prefill(PROMPT)[0], expected) < 1e-5
    assert "dot_1" not in card.opened[-1].launched[-20:]
    assert len(card.cache) == 1  # the kernels: nothing was found right


def test_kernels_that_are_all_wrong_are_not_used(card: Card, files: dict[str, Path]) -> None:
    card.broken = "embed"
    falls_back(files["bf16"], "the v7 kernels disagree with torch in decode by ")
    with pytest.raises(UnavailableError, match=r"disagree with torch in decode by .* and prefill"):
        on_card(files["bf16"], kernels="cuda")


@pytest.mark.parametrize(
    "error",
    [
        CudaError("cuLaunchKernel: CUDA error 1", kernel="embed"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED\nCompile with more."),
    ],
)
def test_kernels_that_fail_are_not_used(
    card: Card, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(cuda_load, "judge", failing(error))
    falls_back(files["bf16"], f"they fail on host: {str(error).splitlines()[0]} (rwkv")


def test_kernels_that_take_torch_along_end_in_one_sentence(
    card: Card, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nMore.")

    def judge(*_: object) -> Verdict:
        monkeypatch.setattr(torch, "zeros", failing(error))
        raise error

    monkeypatch.setattr(cuda_load, "judge", judge)
    with pytest.raises(UnavailableError, match=r"^[^\n]*an illegal memory access[^\n]*$") as broken:
        on_card(files["bf16"])
    assert broken.value.hint == "--kernels torch"


@pytest.mark.parametrize(
    ("stored", "dtype", "hint"),
    [
        ("bf16", None, "int8"),
        ("bf16", "int8", "int4"),
        ("bf16", "int4", None),
        ("int8", None, None),
    ],
)
@pytest.mark.parametrize("where", ["judge", "load_weights"])
def test_a_card_that_is_full_is_told(
    card: Card,
    judged: list[str],
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    stored: str,
    dtype: str | None,
    hint: str | None,
    where: str,
) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much.")
    monkeypatch.setattr(cuda_load, where, failing(full))
    with pytest.raises(LimitError, match="not enough memory on cuda") as refused:
        on_card(files[stored], dtype)
    wanted = f"a smaller precision needs less: --dtype {hint}" if hint else None
    assert refused.value.hint == wanted
