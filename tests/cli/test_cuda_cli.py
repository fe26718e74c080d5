"""`rwkv` on a card, and where a card, its driver, its compiler or torch is missing or broken: what
people see of it. All of these are fakes.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cli.conftest import Cli, Outcome
from cli.running import environment, rwkv
from oracle import cuda_host
from oracle.cuda_card import NO_CUDA, NO_DRIVER, OLD_DRIVER, Card, fake_card, fake_torch
from oracle.cuda_fakes import use_nvrtc
from oracle.weights import Shape, random_model
from safetensors.numpy import save_file

from rwkv_cli.engine.cuda import load as cuda_load
from rwkv_cli.engine.cuda.selftest import Verdict
from rwkv_cli.errors import StorageError
from rwkv_cli.native.cuda import cache
from rwkv_cli.native.cuda import driver as cu
from rwkv_cli.native.library import is_available

GO = ("--seed", "7", "--temperature", "1", "-N", "6", "--raw")
DOCTOR = "(rwkv doctor --torch)"

needs_host = pytest.mark.skipif(
    cuda_host.compiler() is None or not is_available(),
    reason="there is no C++ compiler, or no native library",
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random RWKV-7 whose sizes the kernels have code for."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    shape = Shape(layers=1, heads=1, size=32, ffn=64, vocab=256, rank=8)
    save_file(random_model("v7", shape), path)
    return path


@pytest.fixture
def card(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card whose kernels pass the self-test at once."""
    made = fake_card(tmp_path, monkeypatch)
    verdict = Verdict(decodes=True, reads=True)
    monkeypatch.setattr(cuda_load, "judge", lambda *_: verdict)
    return made


def answered(result: Outcome) -> list[str]:
    """What a run that gave an answer, and nothing else on stdout, said before its figures."""
    assert result.code == 0
    assert len(result.out) == 6  # a byte for each token
    return [line for line in result.err.splitlines() if not line.startswith("[6 tokens ")]


def refused(result: Outcome, code: int, what: str, step: str) -> None:
    """A run ended with a sentence and the next step."""
    assert (result.code, result.out) == (code, b"")
    said, hint = result.err.splitlines()
    assert said.startswith("rwkv: ")
    assert what in said
    assert hint.strip() == step


# With a card


@needs_host
def test_the_first_answer_says_that_kernels_were_compiled(
    card: Card, cli: Cli, small: Path
) -> None:
    go = ("generate", "-m", small, "--device", "cuda", *GO, "hi")
    first, second, quiet = cli(*go), cli(*go), cli(*go, "-q")
    (line,) = answered(first)
    assert line.startswith("CUDA kernels: compiled for sm_90 in ")
    assert answered(second) == answered(quiet) == []
    assert first.out == second.out == quiet.out
    assert len(card.opened) == 3


@needs_host
def test_kernels_or_not_the_answer_is_the_same(card: Card, cli: Cli, small: Path) -> None:
    go = ("generate", "-m", small, *GO, "hi")
    for way in ("auto", "cuda", "torch"):
        result = cli(*go, "--device", "cuda", "--kernels", way)
        assert (result.code, result.out) == (0, cli(*go).out)
    assert len(card.opened) == 2


@needs_host
def test_a_strategy_names_a_card_as_well(card: Card, cli: Cli, small: Path) -> None:
    result = cli("generate", "-m", small, "--strategy", "cuda fp16i8", *GO, "hi")
    assert answered(result)[0].startswith("CUDA kernels: compiled")
    assert "-DRWKV_TYPES=12 " in card.fakes.compilations()[0]


@needs_host
def test_a_conversation_is_told_once(card: Card, cli: Cli, small: Path) -> None:
    card.fakes.behave(cuda_version=11080)
    go = ("chat", "-m", small, "--device", "cuda", "-N", "3", "--seed", "1")
    result = cli(*go, stdin=b"hi\nagain\nand again\n")
    assert result.code == 0
    assert result.err.count(DOCTOR) == 1
    assert b"CUDA" not in result.out


@needs_host
def test_wrong_kernels_are_named(
    card: Card, cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict(decodes=True, reads=False, why="the v7 kernels disagree with torch")
    monkeypatch.setattr(cuda_load, "judge", lambda *_: verdict)
    go = ("generate", "-m", small, "--device", "cuda", *GO, "hi")
    for _ in range(2):
        words = "Some CUDA kernels are not used: the v7 kernels disagree with torch"
        assert answered(cli(*go)) == [words]


@needs_host
def test_a_cache_that_cannot_be_written_is_told(
    card: Card, cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, image: bytes) -> None:
        raise StorageError("cannot write the cache: read-only file system")

    monkeypatch.setattr(cache, "write", refuse)
    (line,) = answered(cli("generate", "-m", small, "--device", "cuda", *GO, "hi"))
    assert line.endswith(", but not kept: cannot write the cache: read-only file system")


# With something broken


def check_without_kernels(cli: Cli, small: Path, why: str) -> None:
    """Torch runs and a line says why, unless nothing but kernels would do."""
    go = ("generate", "-m", small, "--device", "cuda", *GO, "hi")
    (line,) = answered(cli(*go))
    assert line.startswith(f"CUDA kernels unavailable, running on torch: {why}")
    assert line.endswith(DOCTOR)
    assert answered(cli(*go, "-q")) == []
    assert answered(cli(*go, "--kernels", "torch")) == []
    for asked in (("--kernels", "cuda"), ("--dtype", "int8"), ("--dtype", "int4")):
        refused(cli(*go, *asked), 3, f"the CUDA kernels cannot be used: {why}", DOCTOR[1:-1])


@needs_host
@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ({"cuda_version": 11080}, "the CUDA driver (11.8) is too old"),
        ({"nvrtc_log": "dot.cuh(7): error: nonsense"}, "NVRTC 13.7 cannot compile the kernels"),
        ({"cuda_fail": "cuModuleLoadData:209"}, "cuModuleLoadData: CUDA_ERROR_NO_BINARY_FOR_GPU"),
        ({"cuda_sm": 61}, "the kernels need a card of sm_70 or newer"),
    ],
)
def test_with_something_broken_torch_answers(
    card: Card, cli: Cli, small: Path, behaviour: dict[str, object], why: str
) -> None:
    card.fakes.behave(**behaviour)
    check_without_kernels(cli, small, why)


@needs_host
def test_without_a_driver_torch_answers(
    card: Card, cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cu, "NAME", "libcuda-none.so.1")
    check_without_kernels(cli, small, "there is no CUDA driver")


@needs_host
def test_without_a_compiler_torch_answers(
    card: Card, cli: Cli, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_nvrtc(monkeypatch)
    check_without_kernels(cli, small, "NVRTC was not found")


@needs_host
def test_sizes_without_kernels_are_answered_by_torch(card: Card, cli: Cli, tiny: Path) -> None:
    check_without_kernels(cli, tiny, "the CUDA kernels have no code for heads of 16 channels")


@needs_host
def test_a_packed_file_needs_kernels(card: Card, cli: Cli, small: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.safetensors"
    assert cli("convert", small, "--dtype", "int8", "-o", packed).code == 0
    go = ("generate", "-m", packed, "--device", "cuda", *GO, "hi")
    assert answered(cli(*go))[0].startswith("CUDA kernels: compiled")
    card.fakes.behave(cuda_version=11080)
    refused(cli(*go), 3, "the CUDA kernels cannot be used: the CUDA driver (11.8)", DOCTOR[1:-1])
    torch = cli(*go, "--kernels", "torch")
    refused(torch, 2, "is packed for the native engine", "name the file that it was made from")


# Without a card, and without torch


@pytest.mark.parametrize("failure", [NO_CUDA, OLD_DRIVER, NO_DRIVER], ids=str)
def test_without_a_card_a_sentence_says_so(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    fake_torch(monkeypatch, failure)
    go = ("generate", "-m", tiny, *GO, "hi")
    for asked in ((), ("--kernels", "cuda"), ("--kernels", "torch"), ("--dtype", "int8")):
        what = "there is no cuda here that torch can use"
        hint = "--device cpu, or --strategy auto, in place of what names cuda"
        refused(cli(*go, "--device", "cuda", *asked), 2, what, hint)
    assert answered(cli(*go)) == []


_NO_TORCH = """
import importlib.metadata as metadata
import sys

class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

def found(name, known=metadata.Distribution.from_name):
    if name == "torch":
        raise metadata.PackageNotFoundError(name)
    return known(name)

sys.meta_path.insert(0, Gone())
metadata.Distribution.from_name = found
"""


@pytest.fixture
def torchless(tmp_path: Path) -> dict[str, str]:
    """An environment in which Python has no torch."""
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "sitecustomize.py").write_text(_NO_TORCH)
    return environment(tmp_path, PYTHONPATH=str(tmp_path / "gone"), RWKV_NATIVE_LIBRARY=None)


def outcome(done: subprocess.CompletedProcess[bytes]) -> Outcome:
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@pytest.mark.skipif(not is_available(), reason="there is no native library")
@pytest.mark.parametrize("dtype", [(), ("--dtype", "int8")], ids=["as-stored", "int8"])
def test_without_torch_a_cpu_answers(
    torchless: dict[str, str], small: Path, dtype: tuple[str, ...]
) -> None:
    done = rwkv(["generate", "-m", small, *GO, *dtype, "hi"], torchless)
    assert answered(outcome(done)) == []


@pytest.mark.parametrize("asked", [(), ("--kernels", "cuda"), ("--kernels", "torch")], ids=str)
def test_without_torch_there_is_no_card(
    torchless: dict[str, str], small: Path, asked: tuple[str, ...]
) -> None:
    done = rwkv(["generate", "-m", small, *GO, "--device", "cuda", *asked, "hi"], torchless)
    what = "torch is needed for this, and cannot be imported: No module named 'torch'"
    refused(outcome(done), 3, what, "--device cpu")


def test_without_torch_the_doctor_says_so(torchless: dict[str, str]) -> None:
    for flags, words in (((), "not installed"), (("--torch",), "cannot be imported: No module")):
        done = rwkv(["doctor", "--json", *flags], torchless)
        assert (done.returncode, done.stderr) == (0, b"")
        found = json.loads(done.stdout)
        assert found["torch"]["result"].startswith(words)
        assert "install torch" in found["torch"]["next"]
        plain = rwkv(["doctor", *flags], torchless)
        assert (plain.returncode, plain.stderr) == (0, b"")
        assert f"torch         {words}" in plain.stdout.decode()
