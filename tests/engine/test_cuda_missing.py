"""From a strategy to an engine where a card, its driver, its compiler or torch is missing or
broken; all of these are fakes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from oracle import cuda_host
from oracle.cuda_card import (
    NO_CUDA,
    NO_DRIVER,
    OLD_DRIVER,
    Card,
    fake_torch,
    falls_back,
    on_card,
    script,
)
from oracle.cuda_fakes import use_nvrtc
from oracle.models import save_pth
from oracle.weights import Shape, random_model

from rwkv_cli.engine.cuda import load as cuda_load
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.errors import RwkvError, UsageError
from rwkv_cli.native.cuda import driver as cu
from rwkv_cli.native.library import UnavailableError, is_available

if cuda_host.compiler() is None or not is_available():
    pytest.skip("there is no C++ compiler, or no native library", allow_module_level=True)


# With something missing


BREAKS: dict[str, tuple[dict[str, object], str]] = {
    "old driver": ({"cuda_version": 11080}, "the CUDA driver (11.8) is too old"),
    "older than NVRTC": ({"cuda_version": 12040}, "the CUDA driver (12.4) is older than"),
    "no compiling": ({"nvrtc_log": "a.cuh(1): error: no"}, "NVRTC 13.7 cannot compile the kernels"),
    "no loading": ({"cuda_fail": "cuModuleLoadData:209"}, "cuModuleLoadData: CUDA_ERROR_NO_BINARY"),
    "no start": ({"cuda_fail": "cuInit:803"}, "cuInit: "),
    "old card": ({"cuda_sm": 61}, "the kernels need a card of sm_70 or newer, this is sm_61"),
    "no context": ({"cuda_context": 0}, "nothing has been done on cuda:0 yet"),
}


def needs_kernels(files: dict[str, Path], why: str) -> None:
    """Where nothing else would do, a sentence says what is missing."""
    ways: list[tuple[str, dict[str, Any]]] = [
        ("bf16", {"kernels": "cuda"}),
        ("bf16", {"dtype": "int8"}),
        ("bf16", {"dtype": "int4"}),
        ("int8", {}),
    ]
    for stored, asked in ways:
        with pytest.raises(UnavailableError) as refused:
            on_card(files[stored], **asked)
        assert refused.value.exit_code == 3
        assert refused.value.message.startswith(f"the CUDA kernels cannot be used: {why}")
        assert "\n" not in refused.value.message
        assert refused.value.hint == "rwkv doctor --torch"


@pytest.mark.parametrize("what", BREAKS)
def test_with_something_broken_torch_runs_where_it_can(
    card: Card, files: dict[str, Path], what: str
) -> None:
    behaviour, why = BREAKS[what]
    card.fakes.behave(**behaviour)
    falls_back(files["bf16"], why)
    needs_kernels(files, why)
    assert not card.opened


def test_without_a_driver_or_a_compiler_torch_runs_where_it_can(
    card: Card, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cu, "NAME", "libcuda-none.so.1")
        falls_back(files["bf16"], "there is no CUDA driver")
        needs_kernels(files, "there is no CUDA driver")
    use_nvrtc(monkeypatch)
    falls_back(files["bf16"], "NVRTC was not found")
    needs_kernels(files, "NVRTC was not found")


def test_a_compiler_that_is_no_library_is_none(
    card: Card, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "libnvrtc.so.13"
    path.write_text("half a download")
    use_nvrtc(monkeypatch, path)
    falls_back(files["bf16"], str(path))


@pytest.mark.parametrize(
    ("heads", "size", "why"),
    [
        (2, 16, "the CUDA kernels have no code for heads of 16 channels"),
        (3, 16, "the CUDA kernels need widths that are multiples of 32, this has 48"),
    ],
)
def test_sizes_without_kernels_run_on_torch(
    card: Card, tmp_path: Path, heads: int, size: int, why: str
) -> None:
    shape = Shape(layers=1, heads=heads, size=size, ffn=64, vocab=256, rank=8)
    path = save_pth(random_model("v7", shape), tmp_path / "odd.pth")
    falls_back(path, why)
    for asked in ({"kernels": "cuda"}, {"dtype": "int8"}):
        with pytest.raises(UnavailableError, match=why):
            on_card(path, **asked)
    assert not card.fakes.compilations()


def test_packed_weights_need_the_native_library_and_others_do_not(
    card: Card, judged: list[str], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_load, "unavailable_reason", lambda: "it is gone")
    assert on_card(files["bf16"]).engine.numerics == "cuda hostx3 fp16"
    ways: list[tuple[str, dict[str, Any]]] = [
        ("bf16", {"dtype": "int8"}), ("bf16", {"dtype": "int4"}), ("int8", {}),
    ]  # fmt: skip
    for stored, asked in ways:
        with pytest.raises(UnavailableError, match="needs the native library: it is gone"):
            on_card(files[stored], **asked)


@pytest.mark.parametrize("failure", [NO_CUDA, OLD_DRIVER, NO_DRIVER], ids=str)
def test_a_torch_without_a_card_is_told_from_one_with(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    fake_torch(monkeypatch, failure)
    monkeypatch.setattr(cuda_load, "find", None)  # whoever looks for kernels fails
    for kernels in (None, "torch", "cuda"):
        with pytest.raises(UsageError, match=r"^there is no cuda here that torch can use$") as no:
            on_card(files["bf16"], kernels=kernels)
        assert no.value.exit_code == 2
        assert str(no.value.hint).startswith("--device cpu, or --strategy auto")


@pytest.mark.parametrize("error", [ImportError("No module named 'torch'"), OSError("no libc10.so")])
@pytest.mark.parametrize(("device", "hint"), [("cuda", "--device cpu"), ("cpu", "pip install")])
def test_without_torch_what_needs_it_ends_in_one_sentence(
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    device: str,
    hint: str,
) -> None:
    class Gone:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "rwkv_cli.engine.torch_weights":
                raise error

    monkeypatch.setattr(sys, "meta_path", [Gone(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "rwkv_cli.engine.torch_weights")
    with pytest.raises(RwkvError, match="torch is needed for this, and cannot be imported") as no:
        load_model(files["bf16"], Strategy(device, engine="torch"), tokenizer="bytes")
    assert no.value.exit_code == 3
    assert str(no.value.hint).startswith(hint)


_TORCH_ALONE = """
import sys
from pathlib import Path
import pytest
from oracle.cuda_card import fake_torch
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.strategy import Strategy
with pytest.MonkeyPatch.context() as patch:
    fake_torch(patch)
    for asked in ({"kernels": "torch"}, {"engine": "torch"}):
        model = load_model(Path(sys.argv[1]), Strategy("cuda", **asked), tokenizer="bytes")
        assert model.engine.numerics == "torch cuda bf16" and model.notice is None
print(*(name for name in sys.modules if ".cuda" in name and name.startswith("rwkv_cli")))
"""


def test_whoever_wants_torch_alone_is_asked_for_no_kernels(files: dict[str, Path]) -> None:
    assert script(_TORCH_ALONE, files["bf16"]) == "\n"
