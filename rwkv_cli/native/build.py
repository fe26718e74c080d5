"""Compiles the C++ library without CMake, into the user's cache."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from rwkv_cli.errors import RwkvError, StorageError
from rwkv_cli.files import reason, sync_folder
from rwkv_cli.native.machine import default_threads
from rwkv_cli.native.sources import FILE_NAME, Unit, digest, folder, units
from rwkv_cli.places import cache_folder, named_compiler

_COMPILERS = ("c++", "g++", "clang++")
_COMPLAINT = re.compile(r"error:|undefined (reference|symbol)|unrecognized|cannot find")
_KEPT = 3  # libraries of other versions that stay in the cache
_LIMIT = 600  # seconds a call of the compiler may take
_STATIC_RUNTIME = ("-static-libstdc++", "-static-libgcc")


def find_compiler() -> list[str] | None:
    """Give the command of the C++ compiler: `CXX`, or the first of c++, g++, clang++ on the path;
    None when there is none.
    """
    named = shlex.split(named_compiler() or "")
    if named:
        return named if shutil.which(named[0]) else None
    path = next(filter(None, map(shutil.which, _COMPILERS)), None)
    return [path] if path else None


def built_library() -> Path | None:
    """Give the file of the library built from this installation's sources, there or not; None
    when there are no sources or there is no cache.
    """
    try:
        return _home() / digest() / FILE_NAME
    except RwkvError:
        return None


def build() -> Path:
    """Compile the library, unless the cache has it; it appears there whole or not at all.

    Returns:
        Its file.

    Raises:
        NotFoundError: The sources are missing.
        StorageError: There is no compiler, or it failed, or the cache cannot be written.
    """
    root, target = folder(), _home() / digest() / FILE_NAME
    if target.is_file():
        return target
    compiler = find_compiler()
    if compiler is None:
        raise StorageError(
            "there is no C++ compiler to build the native library with",
            hint="install g++ or clang++, or set CXX to one; then rwkv doctor --build",
        )
    try:
        _home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_home(), prefix=".building-") as name:
            _compile(compiler, root, Path(name))
            _publish(Path(name), target)
        _prune(target.parent)
    except OSError as error:
        raise StorageError(f"cannot build in {_home()}: {reason(error)}") from error
    return target


def _home() -> Path:
    return cache_folder() / "native"


def _compile(compiler: list[str], root: Path, out: Path) -> None:
    """Compile every file, several at a time, and link them."""

    def one(unit: Unit) -> str:
        name = unit.path.replace("/", "_") + ".o"
        _run(
            [*compiler, *unit.flags, "-Iinclude", "-Isrc", "-c", unit.path, "-o", out / name], root
        )
        return name

    with ThreadPoolExecutor(default_threads()) as pool:
        objects = list(pool.map(one, units()))
    link = [*compiler, "-shared", "-pthread", *objects, "-o", FILE_NAME]
    if sys.platform == "darwin":
        _run(link, out)
        return
    link += ["-Wl,--no-undefined", f"-Wl,--version-script={root / 'exports.map'}"]
    try:
        _run([*link, *_STATIC_RUNTIME], out)
    except StorageError:  # a compiler that has no static runtime
        _run(link, out)


def _run(command: Sequence[str | Path], folder: Path) -> None:
    """Run a command of the compiler.

    Raises:
        StorageError: It failed; the message has what it said first.
    """
    try:
        result = subprocess.run(  # noqa: S603 - the compiler is the user's own
            command, cwd=folder, capture_output=True, timeout=_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise StorageError(f"{command[0]} did not end within {_LIMIT} seconds") from error
    if result.returncode != 0:
        said = result.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
        first = next((line for line in said if _COMPLAINT.search(line)), said[-1])
        raise StorageError(
            f"{command[0]} cannot build the native library: {first.strip()}",
            hint="a newer g++ (10) or clang++ (12) may: set CXX to it; then rwkv doctor --build",
        )


def _publish(built: Path, target: Path) -> None:
    """Give the finished library its place; another process may have been faster."""
    ready = built / "ready"
    ready.mkdir()
    (built / FILE_NAME).replace(ready / FILE_NAME)
    try:
        ready.rename(target.parent)
    except OSError:
        if not target.is_file():
            raise
    sync_folder(target.parent.parent)


def _prune(newest: Path) -> None:
    """Remove libraries of sources that have changed many times since."""
    with suppress(OSError):
        others = [p for p in newest.parent.iterdir() if p != newest and p.name[0] != "."]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
