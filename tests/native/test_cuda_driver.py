"""Calling the CUDA driver; a fake one stands for it, a header of CUDA says how it looks."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from oracle.cuda_fakes import Fakes, fake_cuda

from rwkv_cli.native import build
from rwkv_cli.native.cuda import driver as cu
from rwkv_cli.native.cuda.driver import Driver
from rwkv_cli.native.cuda.errors import CudaError
from rwkv_cli.native.cuda.kernels import Kernels, Usage
from rwkv_cli.native.cuda.structures import signatures

HEADER = Path("/usr/local/cuda/include/cuda.h")
NAME, SIGNATURE = next(iter(signatures().items()))


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return fake_cuda(tmp_path, monkeypatch)


@pytest.fixture
def kernels(fakes: Fakes) -> Kernels:
    return Kernels(Driver(), 0, b"image")


def arguments(first: int = 0) -> ctypes.Structure:
    made = SIGNATURE.arguments()
    ctypes.memmove(ctypes.byref(made), first.to_bytes(8, "little"), 8)
    return made


# Layouts


@pytest.mark.skipif(not HEADER.is_file(), reason="there is no cuda.h")
@pytest.mark.skipif(build.find_compiler() is None, reason="there is no compiler")
def test_layouts_and_numbers_are_those_of_cuda_h(tmp_path: Path) -> None:
    expected = {
        "sizeof(CUlaunchConfig)": ctypes.sizeof(cu.LaunchConfig),
        "offsetof(CUlaunchConfig, gridDimX)": cu.LaunchConfig.grid.offset,
        "offsetof(CUlaunchConfig, gridDimZ)": cu.LaunchConfig.grid.offset + 8,
        "offsetof(CUlaunchConfig, blockDimX)": cu.LaunchConfig.block.offset,
        "offsetof(CUlaunchConfig, blockDimZ)": cu.LaunchConfig.block.offset + 8,
        "offsetof(CUlaunchConfig, sharedMemBytes)": cu.LaunchConfig.shared.offset,
        "offsetof(CUlaunchConfig, hStream)": cu.LaunchConfig.stream.offset,
        "offsetof(CUlaunchConfig, attrs)": cu.LaunchConfig.attributes.offset,
        "offsetof(CUlaunchConfig, numAttrs)": cu.LaunchConfig.count.offset,
        "sizeof(CUlaunchAttribute)": ctypes.sizeof(cu.LaunchAttribute),
        "offsetof(CUlaunchAttribute, id)": cu.LaunchAttribute.id.offset,
        "offsetof(CUlaunchAttribute, value.programmaticStreamSerializationAllowed)": (
            cu.LaunchAttribute.value.offset
        ),
        "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION": cu.PROGRAMMATIC_SERIALIZATION,
        "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT": cu._MULTIPROCESSORS,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": cu._MAJOR,
        "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": cu._MINOR,
        "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": cu._SHARED_OPTIN,
        "CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK": cu.THREADS,
        "CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES": cu.LOCAL,
        "CU_FUNC_ATTRIBUTE_NUM_REGS": cu.REGISTERS,
        "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES": cu.DYNAMIC_SHARED,
        "CUDA_ERROR_NO_DEVICE": cu._NO_DEVICE,
    }
    values = "".join(f'  std::printf("%d\\n", int({name}));\n' for name in expected)
    (tmp_path / "a.cpp").write_text(
        f'#include "{HEADER}"\n#include <cstddef>\n#include <cstdio>\nint main() {{\n{values}}}\n'
    )
    compiler = build.find_compiler()
    assert compiler is not None
    subprocess.run([*compiler, "a.cpp", "-o", "a"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "a"], check=True, capture_output=True, text=True).stdout
    assert dict(zip(expected, map(int, printed.split()), strict=True)) == expected


# Cards


def test_cards_are_described(fakes: Fakes) -> None:
    fakes.behave(cuda_cards=2, cuda_version=12040)
    driver = Driver()
    assert driver.version == (12, 4)
    one, two = driver.devices()
    assert (one.ordinal, two.ordinal) == (0, 1)
    assert (one.name, one.sm, one.memory) == ("Fake 9000", 90, 80 << 30)
    assert (one.multiprocessors, one.shared) == (132, 232448)


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cu, "NAME", "libcuda-none.so.1")
    with pytest.raises(CudaError, match=r"no CUDA driver: libcuda-none\.so\.1 cannot be loaded"):
        Driver()


def test_a_library_that_is_no_driver_is_told(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cu, "NAME", str(fakes.nvrtc))
    with pytest.raises(CudaError, match="too old: it has no cuInit"):
        Driver()


def test_an_old_driver_is_told(fakes: Fakes) -> None:
    fakes.behave(cuda_version=11080)
    with pytest.raises(CudaError, match=r"driver \(11\.8\) is too old, 12\.0 is needed"):
        Driver()


def test_errors_have_the_driver_s_name_and_sentence(fakes: Fakes) -> None:
    fakes.behave(cuda_fail="cuInit:100")
    with pytest.raises(CudaError, match=r"cuInit: CUDA_ERROR_NO_DEVICE \(no kernel") as error:
        Driver()
    assert cu.no_card(error.value)
    fakes.behave(cuda_fail="cuInit:12345")
    with pytest.raises(CudaError, match=r"cuInit: CUDA error 12345$"):
        Driver()


# Launching


def test_a_kernel_is_launched_as_asked(kernels: Kernels, fakes: Fakes) -> None:
    kernels.launch(NAME, (1, 2, 3), 256, 4096, arguments(0x1234_5678_9ABC), 0)
    kernels.launch(NAME, (7, 1, 1), 32, 0, arguments(1), 0)
    assert fakes.launches() == [
        "load image 0",
        f"launch {NAME} 1 2 3 256 1 1 4096 123456789abc",
        f"launch {NAME} 7 1 1 32 1 1 0 1",
    ]


def test_a_programmatic_launch_goes_by_the_extensible_call(kernels: Kernels, fakes: Fakes) -> None:
    kernels.launch(NAME, (4, 5, 6), 128, 64, arguments(0xABC), 0, programmatic=True)
    assert fakes.launches()[1:] == [f"early {NAME} 4 5 6 128 1 1 64 abc"]


def test_a_card_that_has_no_programmatic_launches_gets_plain_ones(fakes: Fakes) -> None:
    fakes.behave(cuda_sm=89)
    kernels = Kernels(Driver(), 0, b"image")
    kernels.launch(NAME, (1, 1, 1), 32, 0, arguments(), 0, programmatic=True)
    assert fakes.launches()[1].startswith(f"launch {NAME} ")


def test_large_shared_memory_is_asked_for_once(kernels: Kernels, fakes: Fakes) -> None:
    for shared in (48 << 10, 49 << 10, 100 << 10):
        kernels.launch(NAME, (1, 1, 1), 32, shared, arguments(), 0)
    told = [line for line in fakes.launches() if line.startswith("shared")]
    assert told == [f"shared {NAME} 232448"]


def test_more_shared_memory_than_a_card_has_is_an_error(kernels: Kernels) -> None:
    with pytest.raises(CudaError, match=f"kernel {NAME}: 232449 bytes of shared memory") as error:
        kernels.launch(NAME, (1, 1, 1), 32, 232449, arguments(), 0)
    assert error.value.kernel == NAME


def test_a_failed_launch_names_its_kernel(kernels: Kernels, fakes: Fakes) -> None:
    fakes.behave(cuda_fail="cuLaunchKernel:209")
    with pytest.raises(CudaError, match=f"kernel {NAME}: cuLaunchKernel: CUDA_ERROR_NO_BINARY"):
        kernels.launch(NAME, (1, 1, 1), 32, 0, arguments(), 0)
    with pytest.raises(CudaError, match="kernel missing: cuModuleGetFunction"):
        kernels.launch("missing", (1, 1, 1), 32, 0, arguments(), 0)


def test_the_arguments_of_another_kernel_are_refused(kernels: Kernels, fakes: Fakes) -> None:
    other = next(s for s in signatures().values() if s.arguments is not SIGNATURE.arguments)
    with pytest.raises(TypeError, match=f"{NAME} takes"):
        kernels.launch(NAME, (1, 1, 1), 32, 0, other.arguments(), 0)
    assert len(fakes.launches()) == 1


def test_what_a_kernel_was_compiled_to_is_known(kernels: Kernels) -> None:
    assert kernels.usage(NAME) == Usage(registers=104, local=103, threads=100)
    assert kernels.blocks(NAME, 256, 0) == 8


def test_kernels_go_to_the_context_that_is_current(fakes: Fakes) -> None:
    kernels = Kernels(Driver(), 0, b"image")
    kernels.make_current()
    fakes.behave(cuda_current=1)
    with pytest.raises(CudaError, match="the current card is cuda:1, not cuda:0"):
        Kernels(Driver(), 0, b"image")
    fakes.behave(cuda_context=0)
    with pytest.raises(CudaError, match="cuda:0 yet: it has no context"):
        Kernels(Driver(), 0, b"image")
