"""Finding the C++ library, and compiling it without CMake."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rwkv_cli.errors import LimitError, StorageError
from rwkv_cli.native import build, library, sources

needs_library = pytest.mark.skipif(not library.is_available(), reason="there is no library")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="a script plays the compiler")

# Notes each call, and makes the file after -o.
MAKES_IT = """
echo "$@" >> "$LOG"
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, and a search that starts anew before and after."""
    monkeypatch.setenv("RWKV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LOG", str(tmp_path / "calls"))
    library.forget()
    yield tmp_path / "cache"
    library.forget()


def compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / "cxx"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(path))
    return path


def calls(tmp_path: Path) -> list[str]:
    log = tmp_path / "calls"
    return log.read_text().splitlines() if log.exists() else []


# Finding


def test_a_named_library_that_is_not_there_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RWKV_NATIVE_LIBRARY", str(tmp_path / "none.so"))
    assert not library.is_available()
    with pytest.raises(library.UnavailableError, match="RWKV_NATIVE_LIBRARY: no such file") as why:
        library.library()
    assert why.value.hint
    assert library.unavailable_reason() == why.value.message


def test_a_file_that_is_no_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.so"
    path.write_text("hello")
    monkeypatch.setenv("RWKV_NATIVE_LIBRARY", str(path))
    with pytest.raises(library.UnavailableError, match="cannot be loaded"):
        library.library()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('extern "C" int rwkv_abi_version() { return 99; }', "has interface 99"),
        ('extern "C" int something_else() { return 1; }', "cannot be loaded"),
    ],
)
def test_a_library_of_another_version_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    command = build.find_compiler()
    if command is None:
        pytest.skip("there is no compiler")
    (tmp_path / "x.cpp").write_text(code)
    path = tmp_path / "x.so"
    subprocess.run([*command, "-shared", "-fPIC", tmp_path / "x.cpp", "-o", path], check=True)
    monkeypatch.setenv("RWKV_NATIVE_LIBRARY", str(path))
    reason = library.unavailable_reason()
    assert reason is not None
    assert said in reason


@needs_library
def test_codes_become_exceptions_with_the_sentence_of_the_library() -> None:
    lib = library.library()
    library.check(0)
    library.check(lib.rwkv_abi_version())
    with pytest.raises(library.NativeError, match="place for the pool"):
        library.check(lib.rwkv_pool_new(1, None))
    with pytest.raises(LimitError):
        library.check(-2)


@needs_library
def test_finding_the_library_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from rwkv_cli.native.library import library; library();"
        "assert not {'torch', 'numpy', 'click'} & set(sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RWKV_CACHE_DIR"}
    # Away from the checkout: the installed package is what is tested.
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)


# Building


def test_without_a_compiler_the_next_step_is_told(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match=r"no C\+\+ compiler") as error:
        build.build()
    assert "rwkv doctor --build" in str(error.value.hint)
    assert not cache.exists()
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    assert build.find_compiler() is None


@needs_posix
def test_every_unit_is_compiled_once_with_its_flags(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(tmp_path, MAKES_IT, monkeypatch)
    path = build.build()
    assert path.read_text() == "made\n"
    assert path.is_relative_to(cache / "native")
    seen = calls(tmp_path)
    for unit in sources.units():
        assert any(f"-c {unit.path} " in call and " ".join(unit.flags) in call for call in seen)
    assert sum("-shared" in call for call in seen) == 1
    assert build.build() == path
    assert calls(tmp_path) == seen  # it is there: nothing is compiled again
    assert [p.name for p in (cache / "native").iterdir()] == [path.parent.name]


@needs_posix
def test_a_linker_without_a_static_runtime_is_asked_again_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse = 'case "$*" in *-static-libstdc++*) exit 1;; esac\n'
    compiler(tmp_path, refuse + MAKES_IT, monkeypatch)
    assert build.build().is_file()


@needs_posix
def test_a_compiler_that_fails_leaves_nothing_and_is_quoted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(tmp_path, "echo In file; echo 'x.cpp:3: error: too old' >&2; exit 1", monkeypatch)
    with pytest.raises(StorageError, match=r"x\.cpp:3: error: too old"):
        build.build()
    assert list((cache / "native").iterdir()) == []


@needs_posix
def test_a_cache_that_cannot_be_written_is_said(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(tmp_path, MAKES_IT, monkeypatch)
    cache.write_text("a file, no folder")
    with pytest.raises(StorageError, match="cannot build in"):
        build.build()


@needs_posix
def test_old_libraries_do_not_pile_up(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(tmp_path, MAKES_IT, monkeypatch)
    for age in range(6):
        old = cache / "native" / f"{age:016x}"
        old.mkdir(parents=True)
        os.utime(old, (1000 - age, 1000 - age))
    path = build.build()
    kept = {p.name for p in (cache / "native").iterdir()}
    assert kept == {path.parent.name, *(f"{age:016x}" for age in range(3))}


def test_what_was_built_is_found_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = build.find_compiler()
    if command is None or os.name != "posix":
        pytest.skip("there is no compiler")
    fast = f'exec {shutil.which(command[0])} "$@" -O0\n'  # quick to compile is enough
    compiler(tmp_path, fast, monkeypatch)
    monkeypatch.setattr(library, "named_native_library", lambda: None)
    monkeypatch.setattr(library.rwkv_cli.native, "__path__", [str(tmp_path)])
    assert library.unavailable_reason() is not None
    path = build.build()
    library.forget()
    assert library.find() == library.Found(library.library(), path)
    assert library.library().rwkv_abi_version() == library.ABI


@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm to list symbols with")
def test_no_file_for_an_instruction_set_lends_its_functions_to_others(tmp_path: Path) -> None:
    # The linker keeps one copy of an inline function, of whichever file: an older processor would
    # meet instructions that it does not have.
    command = build.find_compiler()
    special = [u for u in sources.units() if any(flag.startswith("-mavx") for flag in u.flags)]
    if command is None or not special:
        pytest.skip("there is no compiler, or nothing to compile")
    for unit in special:
        out = tmp_path / "unit.o"
        flags = (*unit.flags, "-Iinclude", "-Isrc", "-c", unit.path, "-o", out)
        subprocess.run([*command, *flags], check=True, cwd=sources.folder())
        table = subprocess.run(["nm", out], check=True, capture_output=True, text=True).stdout
        weak = [line for line in table.splitlines() if line[17:18] in "WVu"]
        assert not weak, f"{unit.path}: {weak}"
