"""What `rwkv doctor` says about a card, its driver, NVRTC and the kernels."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Cli
from cli.test_doctor import asked
from oracle.cuda_fakes import Fakes, fake_cuda, use_nvrtc

from rwkv_cli.cli import doctorcuda
from rwkv_cli.cli.doctorprobe import Probe
from rwkv_cli.native.cuda import driver as cu
from rwkv_cli.native.cuda.loading import TYPES_OF, find


@pytest.fixture
def fakes(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """A machine with a card, and a torch that is made for it."""
    monkeypatch.setattr(
        doctorcuda, "torch_metadata", lambda: Probe("a torch", None, {"cuda": True})
    )
    return fake_cuda(tmp_path, monkeypatch)


@pytest.fixture
def pci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the system tells about its hardware: a card of NVIDIA's."""
    (tmp_path / "pci" / "0").mkdir(parents=True)
    (tmp_path / "pci" / "0" / "vendor").write_text("0x10de\n")
    monkeypatch.setattr(doctorcuda, "_PCI", tmp_path / "pci")
    return tmp_path / "pci"


def step_of(cli: Cli, probe: str) -> Any:
    return asked(cli)[probe]["next"]


def test_a_card_with_everything_is_told(fakes: Fakes, cli: Cli) -> None:
    found = asked(cli)
    card = "cuda:0 Fake 9000 (sm_90, 80.0 GiB)"
    assert found["cuda"]["result"] == f"driver for CUDA 13.0; {card}"
    assert found["cuda"]["driver"] == "13.0"
    assert found["cuda"]["devices"] == [
        {"name": "Fake 9000", "sm": 90, "memory": 80 << 30, "multiprocessors": 132}
    ]
    assert found["nvrtc"]["result"] == f"13.7, {fakes.nvrtc}"
    assert found["nvrtc"]["architectures"] == [75, 90, 120]
    assert found["kernels"]["result"] == "cuda:0 sm_90 will be compiled by the first model on it"
    assert [found[probe]["next"] for probe in ("cuda", "nvrtc", "kernels")] == [None] * 3


def test_kernels_that_are_compiled_already_are_told(fakes: Fakes, cli: Cli) -> None:
    kept = [find(0, TYPES_OF[dtype]).key for dtype in ("fp16", "int4")]
    found = asked(cli)["kernels"]
    assert found["result"] == "cuda:0 sm_90 are compiled for fp16, int4"
    (card,) = found["cards"]
    assert card["cached"] == ["fp16", "int4"]
    files = {Path(card["path"]) / name for name in found["cached"]}
    assert all(file.is_file() for file in files)
    assert {file.stem for file in files} == set(kept)


def test_every_card_is_told(fakes: Fakes, cli: Cli) -> None:
    fakes.behave(cuda_cards=2)
    found = asked(cli)
    assert len(found["cuda"]["devices"]) == len(found["kernels"]["cards"]) == 2


def test_kernels_that_are_not_wanted_are_told(
    fakes: Fakes, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_KERNELS", "torch")
    found = asked(cli)["kernels"]
    assert found["result"] == "not used: RWKV_KERNELS or the config file says torch"
    assert found["wanted"] == "torch"


def test_a_torch_without_cuda_is_why_there_are_no_kernels(
    fakes: Fakes, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctorcuda, "torch_metadata", lambda: Probe("a torch", None, {"cuda": False})
    )
    found = asked(cli)["kernels"]
    assert "torch is made without CUDA" in found["result"]
    assert "install a torch with CUDA" in found["next"]


def test_without_a_card_there_is_nothing_to_do(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cu, "NAME", "libcuda-none.so.1")
    monkeypatch.setattr(doctorcuda, "_PCI", Path("nowhere"))
    use_nvrtc(monkeypatch)
    found = asked(cli)
    assert "no CUDA driver" in found["cuda"]["result"]
    assert "NVRTC was not found" in found["nvrtc"]["result"]
    assert found["kernels"]["result"] == "not used: there is no card for them"
    assert [found[probe]["next"] for probe in ("cuda", "nvrtc", "kernels")] == [None] * 3


def test_a_card_without_a_driver_wants_one(
    cli: Cli, pci: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cu, "NAME", "libcuda-none.so.1")
    assert "install NVIDIA's driver" in step_of(cli, "cuda")


@pytest.mark.parametrize(
    ("behaviour", "step"),
    [
        ({"cuda_version": 11080}, "install a driver for CUDA 12.0 or newer"),
        ({"cuda_fail": "cuInit:803"}, "start the machine again"),
        ({"cuda_fail": "cuInit:100"}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_driver_that_does_not_work_has_its_step(
    fakes: Fakes, cli: Cli, pci: Path, behaviour: dict[str, object], step: str
) -> None:
    fakes.behave(**behaviour)
    assert step in step_of(cli, "cuda")
    assert asked(cli)["kernels"]["cards"] == []


@pytest.mark.parametrize(
    ("version", "wheel"), [(12080, "nvidia-cuda-nvrtc-cu12"), (13000, "nvidia-cuda-nvrtc")]
)
def test_a_machine_without_a_compiler_is_told_which(
    fakes: Fakes, cli: Cli, monkeypatch: pytest.MonkeyPatch, version: int, wheel: str
) -> None:
    use_nvrtc(monkeypatch)
    fakes.behave(cuda_version=version)
    found = asked(cli)
    assert found["nvrtc"]["next"] == f"pip install {wheel}"
    assert "NVRTC was not found" in found["kernels"]["result"]
    assert "run on torch" in found["kernels"]["next"]


def test_the_findings_do_not_need_torch(fakes: Fakes, env: dict[str, str]) -> None:
    code = (
        "import sys; from rwkv_cli.native.cuda import driver; driver.NAME = sys.argv[1]\n"
        "from rwkv_cli.cli.app import run\n"
        "assert run(['doctor']) == 0 and 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(fakes.driver)]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    assert "Fake 9000" in done.stdout


def test_a_loaded_library_is_left_as_it_is(fakes: Fakes, cli: Cli) -> None:
    """Looking around makes no context and loads no kernels."""
    asked(cli)
    assert fakes.launches() == []
    assert fakes.compilations() == []
    assert ctypes.CDLL(str(fakes.driver)).cuInit(0) == 0
