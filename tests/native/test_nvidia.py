"""Cards are counted, named and measured through the driver and NVML, without torch; whatever is
missing is done without.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rwkv_cli.engine import memory
from rwkv_cli.native import hostmemory, nvidia
from rwkv_cli.native.cuda import driver as cuda

GB = 10**9


def answer(value: int | bytes) -> Callable[..., int]:
    """A function of a driver that gives a number or a text through its first or last pointer."""

    def function(*arguments: Any) -> int:
        if isinstance(value, bytes):
            arguments[0].value = value
            return 0
        pointers = [a for a in arguments if hasattr(a, "_obj")]
        pointers[-1]._obj.value = value
        return 0

    return function


class FakeLibrary:
    """A loaded library that has some functions."""

    def __init__(self, **functions: Callable[..., int]) -> None:
        self.__dict__.update(functions)


def memory_info(_handle: object, pointer: Any) -> int:
    pointer._obj.total, pointer._obj.free = 24 * GB, 20 * GB
    return 0


def attributes(pointer: Any, which: int, _handle: object) -> int:
    pointer._obj.value = {36: 10_501_000, 37: 384}[which]
    return 0


def driver(**changes: Callable[..., int]) -> FakeLibrary:
    working: dict[str, Callable[..., int]] = {
        "cuInit": lambda flags: 0,
        "cuDeviceGetCount": answer(2),
        "cuDeviceGet": answer(0),
        "cuDeviceGetName": answer(b"A Card"),
        "cuDeviceGetAttribute": attributes,
        "cuDeviceTotalMem_v2": answer(24 * GB),
        "cuDeviceGetPCIBusId": answer(b"0000:01:00.0"),
    }
    return FakeLibrary(**(working | changes))


def management(**changes: Callable[..., int]) -> FakeLibrary:
    working: dict[str, Callable[..., int]] = {
        "nvmlInit_v2": lambda: 0,
        "nvmlDeviceGetHandleByPciBusId_v2": answer(1),
        "nvmlDeviceGetMemoryInfo": memory_info,
        "nvmlDeviceGetMaxPcieLinkGeneration": answer(4),
        "nvmlDeviceGetMaxPcieLinkWidth": answer(16),
    }
    return FakeLibrary(**(working | changes))


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeLibrary]:
    """What the system's loader finds."""
    found: dict[str, FakeLibrary] = {}

    def load(name: str) -> FakeLibrary:
        if name not in found:
            raise OSError(f"{name}: cannot open shared object file")
        return found[name]

    monkeypatch.setattr(ctypes, "CDLL", load)
    return found


def failing(*_: object) -> int:
    return 100


def test_without_a_driver_there_are_no_cards(libraries: dict[str, FakeLibrary]) -> None:
    assert nvidia.nvidia_cards() == []
    libraries[cuda.NAME] = driver(cuInit=failing)
    assert nvidia.nvidia_cards() == []
    libraries[cuda.NAME] = FakeLibrary()
    assert nvidia.nvidia_cards() == []


def test_a_card_is_described_by_driver_and_nvml(libraries: dict[str, FakeLibrary]) -> None:
    libraries |= {cuda.NAME: driver(), nvidia.NVML: management()}
    first, second = nvidia.nvidia_cards()
    assert first == second
    assert (first.name, first.total, first.free) == ("A Card", 24 * GB, 20 * GB)
    assert first.read == pytest.approx(1008e9, rel=0.001)  # as the maker says
    assert first.link == pytest.approx(26.8e9, rel=0.01)


@pytest.mark.parametrize(
    "broken", ["nvmlInit_v2", "nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetMemoryInfo"]
)
def test_without_nvml_the_free_memory_is_not_known(
    libraries: dict[str, FakeLibrary], broken: str
) -> None:
    libraries |= {cuda.NAME: driver(), nvidia.NVML: management(**{broken: failing})}
    card = nvidia.nvidia_cards()[0]
    assert (card.total, card.free, card.link) == (24 * GB, None, None)
    known = memory.this_machine().card("cuda")
    assert known is not None
    assert known.free == int(0.9 * 24 * GB)


def test_an_unknown_link_or_clock_leaves_the_rest(libraries: dict[str, FakeLibrary]) -> None:
    libraries[cuda.NAME] = driver(cuDeviceGetAttribute=failing)
    libraries[nvidia.NVML] = management(nvmlDeviceGetMaxPcieLinkGeneration=answer(9))
    card = nvidia.nvidia_cards()[0]
    assert (card.free, card.read, card.link) == (20 * GB, None, None)


def test_free_memory_is_what_the_system_and_the_group_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostmemory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(hostmemory, "_GROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert hostmemory.free_memory() == 8000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert hostmemory.free_memory() == 8000 * 1024
    (tmp_path / "memory.max").write_text(f"{5000 * 1024}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2000 * 1024}\nfile {2500 * 1024}\n")
    assert hostmemory.free_memory() == 3000 * 1024


def test_a_speed_is_measured_once_and_a_damaged_note_of_it_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_CACHE_DIR", str(tmp_path / "new"))
    rates = iter([3e10, 4e10])
    monkeypatch.setattr(memory, "_measured", lambda threads: next(rates))
    assert memory.read_rate(2, measure=False) is None
    assert memory.read_rate(2, measure=True) == 3e10
    assert memory.read_rate(2, measure=True) == memory.read_rate(2, measure=False) == 3e10
    (note,) = (tmp_path / "new").iterdir()
    for damaged in (b"", b"[1]", b'{"x": "y"}', json.dumps({"x": -1.0}).encode()):
        note.write_bytes(damaged)
        assert memory.read_rate(2, measure=False) is None
    assert memory.read_rate(2, measure=True) == 4e10
