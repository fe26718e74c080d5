"""Finding NVRTC, and compiling with the real one where it is installed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from oracle.cuda_fakes import Fakes, fake_cuda, use_nvrtc

from rwkv_cli.native.cuda import nvrtc, search
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.cuda.loading import OPTIONS
from rwkv_cli.native.cuda.source import source


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return fake_cuda(tmp_path, monkeypatch)


def real() -> nvrtc.Compiler:
    try:
        return nvrtc.find()
    except CudaError as error:
        pytest.skip(error.message)


# Finding


def test_nvrtc_is_found_in_the_wheels_of_every_cuda(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    wanted = []
    for where in ("cu13/lib/libnvrtc.so.13", "cuda_nvrtc/lib/libnvrtc.so.12"):
        path = site / "nvidia" / where
        path.parent.mkdir(parents=True)
        shutil.copy(fakes.nvrtc, path)
        wanted.append(path)
    (site / "nvidia/cu13/lib/libnvrtc.alt.so.13").write_text("not this one")
    (site / "nvidia/cu13/lib/libnvrtc-builtins.so.13.0").write_text("nor this")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "nothing"), str(site)])
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert search._in_packages() == wanted


def test_the_newest_toolkit_of_the_system_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("cuda-12.8/lib64/libnvrtc.so.12", "cuda-13.0/lib64/libnvrtc.so.13")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(search, "_TOOLKITS", ((str(tmp_path), "cuda*/lib64"),))
    assert search._in_toolkits() == [tmp_path / names[1], tmp_path / names[0]]


def test_the_first_that_can_be_used_is_taken(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "libnvrtc.so.13"
    broken.write_text("no library")
    use_nvrtc(monkeypatch, broken, fakes.driver, fakes.nvrtc)
    found = nvrtc.find()
    assert found.path == fakes.nvrtc
    assert (found.version, found.architectures) == ((13, 7), (75, 90, 120))
    use_nvrtc(monkeypatch, broken)
    with pytest.raises(CudaError, match=r"libnvrtc\.so\.13: cannot be loaded"):
        nvrtc.find()


def test_a_compiler_that_is_newer_than_the_driver_is_passed_over(fakes: Fakes) -> None:
    assert nvrtc.find((13, 0)).version == (13, 7)
    with pytest.raises(CudaError, match=r"driver \(12\.9\) is older than .* NVRTC 13\.7"):
        nvrtc.find((12, 9))
    fakes.behave(nvrtc_version=12)
    assert nvrtc.find((12, 0)).version == (12, 7)


def test_where_there_is_none_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    use_nvrtc(monkeypatch)
    with pytest.raises(CudaError, match="NVRTC was not found"):
        nvrtc.find()


@pytest.mark.skipif(not hasattr(os, "RTLD_NOLOAD"), reason="no way to ask")
def test_the_one_that_is_loaded_already_comes_first(tmp_path: Path) -> None:
    path = real().path
    first = next(iter(search.candidates()))
    assert first[1] == os.RTLD_NOLOAD
    modes = dict(reversed(list(search.candidates())))
    loaded = ctypes.CDLL(path.name, mode=modes[path.name])
    assert nvrtc._file_of(loaded) == path


# Compiling


def test_a_known_card_gets_its_own_code_and_a_newer_one_ptx(fakes: Fakes) -> None:
    compiler = nvrtc.find()
    assert compiler.target(90) == "sm_90"
    assert compiler.target(103) == "compute_90"
    assert compiler.target(130) == "compute_120"
    with pytest.raises(CudaError, match="sm_75 and newer, not for sm_70"):
        compiler.target(70)


def test_the_compiler_gets_headers_and_options(fakes: Fakes) -> None:
    compiler = nvrtc.find()
    image = compiler.compile("", {"a.cuh": "", "b.cuh": ""}, "sm_90", ["--std=c++17"])
    assert image == b"made with --gpu-architecture=sm_90"
    assert compiler.compile("", {}, "compute_90") == b"made with --gpu-architecture=compute_90\0"
    assert fakes.compilations() == [
        "--gpu-architecture=sm_90 --std=c++17 | a.cuh b.cuh",
        "--gpu-architecture=compute_90 |",
    ]


def test_the_first_complaint_of_a_compiler_is_told(fakes: Fakes) -> None:
    fakes.behave(nvrtc_log="a.cuh(2): warning: w\na.cuh(3): error: no x\na.cuh(4): error: no y")
    with pytest.raises(CudaError, match=r"cannot compile the kernels: a\.cuh\(3\): error: no x$"):
        nvrtc.find().compile("", {}, "sm_90")


def test_the_real_compiler_tells_file_and_line() -> None:
    with pytest.raises(CudaError, match=r"a\.cuh\(2\): error"):
        real().compile('#include "a.cuh"', {"a.cuh": "\nint f() { return x; }"}, "sm_90")


def test_the_real_compiler_works_in_a_fresh_process() -> None:
    """The second half of NVRTC is found, wherever it lies."""
    real()
    code = (
        "from rwkv_cli.native.cuda import nvrtc; c = nvrtc.find();"
        "print(c.compile('__global__ void f() {}', {}, c.target(90))[:4])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("b'\\x7fELF'\n", "")


def test_the_kernels_compile_for_old_and_new_cards() -> None:
    # Optimizing takes 20 s a card, and `make cuda-check` does it; here the source is tested.
    text, compiler = source(), real()
    quick = compiler.version >= (13, 0) and "RWKV_TEST_NVRTC" not in os.environ
    options = [*OPTIONS, *(["--Ofast-compile=max"] if quick else [])]

    def compiled(target: str) -> bytes:
        return compiler.compile(text.main, text.headers, target, options)

    with ThreadPoolExecutor() as pool:
        for image in pool.map(compiled, ("sm_75", "sm_90")):
            assert image.startswith(b"\x7fELF")
