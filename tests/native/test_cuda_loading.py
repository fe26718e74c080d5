"""From sources to kernels on a card, with every reason why not; driver and NVRTC are fakes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from oracle.cuda_fakes import Fakes, fake_cuda, use_nvrtc

from rwkv_cli.native import sources
from rwkv_cli.native.cuda import cache, loading, source
from rwkv_cli.native.cuda import driver as cu
from rwkv_cli.native.cuda.loading import find

needs_modes = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="modes of folders do not hold"
)


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return fake_cuda(tmp_path, monkeypatch)


def kept(fakes: Fakes) -> list[Path]:
    return sorted((fakes.folder / "cache" / "cuda").iterdir())


def refused(what: str) -> None:
    found = find(0)
    assert found.kernels is None
    assert found.notice is None
    assert found.why is not None
    assert what in found.why
    assert "\n" not in found.why


# With everything there


def test_kernels_are_compiled_once(fakes: Fakes) -> None:
    first, second = find(0), find(0)
    assert first.kernels is not None
    assert second.kernels is not None
    assert first.notice is not None
    assert first.notice.startswith("CUDA kernels: compiled for sm_90 in ")
    assert first.notice.endswith(" s (cached)")
    assert (first.why, second.why, second.notice) == (None, None, None)
    (call,) = fakes.compilations()
    assert call.startswith("--gpu-architecture=sm_90 --std=c++17 --fmad=false -DRWKV_TYPES=31 | ")
    assert "device.cuh" in call
    assert fakes.launches() == ["load made with --gpu-architecture=sm_90 0"] * 2


def test_kernels_for_other_types_of_weights_are_others(fakes: Fakes) -> None:
    all_types, some, again = find(0), find(0, 4), find(0, 4)
    assert all_types.key != some.key == again.key
    assert [" -DRWKV_TYPES=4 " in call for call in fakes.compilations()] == [False, True]


@pytest.mark.parametrize("change", [{"cuda_sm": 120}, {"nvrtc_version": 12}])
def test_another_card_or_compiler_has_its_own_kernels(fakes: Fakes, change: dict[str, int]) -> None:
    find(0)
    fakes.behave(**change)
    assert find(0).notice is not None
    assert len(fakes.compilations()) == len(kept(fakes)) == 2


def test_changed_sources_are_compiled_again(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    find(0)
    text = source.source()
    changed = source.Source(text.main + " ", text.headers)
    monkeypatch.setattr(loading, "source", lambda: changed)
    assert find(0).notice is not None
    assert len(fakes.compilations()) == 2


def test_a_card_that_the_compiler_does_not_know_gets_ptx(fakes: Fakes) -> None:
    fakes.behave(cuda_sm=121)
    notice = find(0).notice
    assert notice is not None
    assert "compiled for compute_120" in notice
    assert fakes.launches() == ["load made with --gpu-architecture=compute_120 0"]


# With something missing


def test_without_a_driver_there_are_no_kernels(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cu, "NAME", "libcuda-none.so.1")
    refused("there is no CUDA driver")
    assert not fakes.compilations()


def test_an_old_driver_has_no_kernels(fakes: Fakes) -> None:
    fakes.behave(cuda_version=11080)
    refused("the CUDA driver (11.8) is too old")


def test_a_driver_that_is_older_than_the_compiler_has_no_kernels(fakes: Fakes) -> None:
    fakes.behave(cuda_version=12040)
    refused("the CUDA driver (12.4) is older than the compiler of kernels, NVRTC 13.7")


def test_without_a_compiler_there_are_no_kernels(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_nvrtc(monkeypatch)
    refused("NVRTC was not found")


def test_kernels_that_do_not_compile_are_none(fakes: Fakes) -> None:
    fakes.behave(nvrtc_log="dot.cuh(7): error: nonsense")
    refused("NVRTC 13.7 cannot compile the kernels: dot.cuh(7): error: nonsense")
    assert not (fakes.folder / "cache" / "cuda").exists()


def test_kernels_that_the_driver_refuses_are_none(fakes: Fakes) -> None:
    fakes.behave(cuda_fail="cuModuleLoadData:209")
    refused("cuModuleLoadData: CUDA_ERROR_NO_BINARY_FOR_GPU (no kernel image fits)")


def test_a_card_that_is_not_there_has_no_kernels(fakes: Fakes) -> None:
    fakes.behave(cuda_cards=0)
    refused("cuDeviceGet: CUDA error 101")


def test_an_old_card_has_no_kernels(fakes: Fakes) -> None:
    fakes.behave(cuda_sm=61)
    refused("the kernels need a card of sm_70 or newer, this is sm_61")


def test_a_card_without_a_context_has_no_kernels(fakes: Fakes) -> None:
    fakes.behave(cuda_context=0)
    refused("it has no context")


def test_without_sources_there_are_no_kernels(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "folder", lambda: tmp_path)
    source.source.cache_clear()
    refused("the CUDA sources are missing")


# The cache


@pytest.mark.parametrize("damage", [b"", b"x", b"x" * 100])
def test_a_damaged_file_is_compiled_again(fakes: Fakes, damage: bytes) -> None:
    find(0)
    (path,) = kept(fakes)
    whole = path.read_bytes()
    for content in (damage, whole[:-1], whole + b"x", whole[:40] + b"?" + whole[41:]):
        path.write_bytes(content)
        assert find(0).notice is not None
        assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(fakes: Fakes) -> None:
    (fakes.folder / "cache").write_text("a file is in the way")
    for _ in range(2):
        found = find(0)
        assert found.kernels is not None
        assert found.notice is not None
        assert ", but not kept: cannot write" in found.notice
    assert len(fakes.compilations()) == 2


@needs_modes
def test_a_cache_of_someone_else_is_done_without(fakes: Fakes) -> None:
    find(0)
    folder = fakes.folder / "cache" / "cuda"
    fakes.behave(cuda_sm=120)
    folder.chmod(0o500)
    try:
        found = find(0)
    finally:
        folder.chmod(0o700)
    assert found.kernels is not None
    assert found.notice is not None
    assert "not kept" in found.notice


def test_without_a_home_nothing_is_kept(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise cache.StorageError("there is no home folder to keep a cache in")

    monkeypatch.setattr(cache, "cache_folder", homeless)
    found = find(0)
    assert found.kernels is not None
    assert found.notice is not None
    assert "no home folder" in found.notice
    assert cache.kept() == []


def test_old_kernels_make_room(fakes: Fakes) -> None:
    names = [cache.key([str(i)]) for i in range(40)]
    for age, name in enumerate(reversed(names)):
        cache.write(name, b"image")
        os.utime(cache.path_of(name), (age, age))
    assert len(cache.kept()) == 32
    assert cache.read(names[0]) == b"image"
    assert cache.read(names[-1]) is None


def test_what_a_killed_process_was_writing_goes_when_it_is_a_day_old(fakes: Fakes) -> None:
    cache.write("a", b"image")
    old, young = (cache.path_of("a").with_name(f".b.cubin.{n}-0123456789ab.tmp") for n in (1, 2))
    for path, age in ((old, 90_000), (young, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    cache.write("c", b"image")
    assert (old.exists(), young.exists()) == (False, True)


def test_keys_tell_parts_apart() -> None:
    assert cache.key(["ab", "c"]) != cache.key(["a", "bc"]) != cache.key(["abc"])


def test_the_cpp_library_does_not_change_with_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("include", "src", "cuda"):
        (tmp_path / name).mkdir()
    for name in ("sources.txt", "exports.map"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sources, "folder", lambda: tmp_path)
    before = sources.digest.__wrapped__()
    (tmp_path / "cuda" / "rwkv.cu").write_text("changed")
    assert sources.digest.__wrapped__() == before
