"""The list of C++ sources, the header and the Python beside them say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rwkv_cli.native import library, sources

NATIVE = Path(__file__).parents[2] / "native"
INSTALLED = Path(sources.__file__).parent / "source"


def listed(machine: str) -> set[str]:
    return {unit.path for unit in sources.units(machine)}


def test_every_source_is_listed_and_every_listed_one_exists() -> None:
    files = {f"src/{path.name}" for path in (NATIVE / "src").glob("*.cpp")}
    assert listed("x86_64") | listed("arm64") == files


def test_a_family_gets_its_own_files_and_flags() -> None:
    common = listed("riscv64")
    assert "src/k_generic.cpp" in common
    assert listed("AMD64") - common >= {"src/k_avx2.cpp", "src/k_avx512.cpp", "src/k_vnni.cpp"}
    assert "src/k_neon.cpp" in listed("aarch64") - common
    assert not listed("aarch64") & (listed("x86_64") - common)
    units = {unit.path: unit.flags for unit in sources.units("x86_64")}
    assert "-mavx2" in units["src/k_avx2.cpp"]
    assert not any(flag.startswith("-m") for flag in units["src/k_generic.cpp"])
    assert all("-std=c++17" in flags for flags in units.values())


def test_no_file_is_compiled_for_an_instruction_set_by_accident() -> None:
    for machine in ("x86_64", "arm64"):
        special = {u.path for u in sources.units(machine) if any(f[:2] == "-m" for f in u.flags)}
        assert all(re.search(r"_(avx|vnni|dotprod|i8mm|neon)", path) for path in special), special


def test_header_and_python_know_the_same_interface() -> None:
    header = (NATIVE / "include" / "rwkv_native.h").read_text(encoding="utf-8")
    found = re.search(r"#define RWKV_NATIVE_ABI (\d+)", header)
    assert found is not None
    assert int(found[1]) == library.ABI


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="the checkout is tested in place")
def test_the_package_brings_the_sources_it_can_be_built_from() -> None:
    kept = [NATIVE / "sources.txt", NATIVE / "exports.map"]
    kept += [path for folder in ("src", "include", "cuda") for path in (NATIVE / folder).iterdir()]
    for path in kept:
        copy = INSTALLED / path.relative_to(NATIVE)
        assert copy.read_bytes() == path.read_bytes(), f"{path} has changed: make install"


@pytest.mark.parametrize(
    "path",
    sorted(p for p in NATIVE.rglob("*") if p.suffix in (".c", ".cpp", ".h", ".inl", ".cu", ".cuh")),
    ids=str,
)
def test_cpp_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
