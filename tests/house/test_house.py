"""Rules of the house: what every file of the project keeps to."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rwkv_cli

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rwkv_cli"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL_SOURCES = [
    p
    for d in ("rwkv_cli", "tests", "demo", "docs", "benchmarks")
    for p in sorted((ROOT / d).rglob("*.py"))
]
SMALL = 3_000_000
BIG = {"rwkv_cli/data/demo.safetensors"}
NEVER = re.compile(
    r"\btorch\.load\(|\bpickle\.loads?\b|\bimport pickle\b|(?<![.\w])eval\(|(?<![.\w])exec\("
    r"|shell=True|\bexcept\s*:|\bos\.system\("
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.skipif(
    os.environ.get("RWKV_TEST_CHECKOUT") == "1", reason="the checkout is tested on purpose"
)
def test_the_package_under_test_is_the_installed_one() -> None:
    found = Path(rwkv_cli.__file__).resolve()
    assert not found.is_relative_to(PACKAGE), "install it first: make install"


@pytest.mark.skipif(
    os.environ.get("RWKV_TEST_CHECKOUT") == "1", reason="the checkout is tested on purpose"
)
def test_no_test_puts_the_checkout_before_the_installed_package() -> None:
    # Processes that tests start get this path; every module of tests has been imported by now.
    places = [Path(place).resolve() for place in sys.path if place]
    installed = Path(rwkv_cli.__file__).resolve().parents[1]
    assert ROOT not in places[: places.index(installed)]


def test_the_installed_package_is_this_checkouts() -> None:
    installed = Path(rwkv_cli.__file__).parent
    for path in SOURCES:
        copy = installed / path.relative_to(PACKAGE)
        assert copy.is_file(), f"{name(path)} is not installed: make install"
        assert copy.read_bytes() == path.read_bytes(), f"{name(path)} has changed: make install"


@pytest.mark.parametrize("path", ALL_SOURCES, ids=name)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for function in functions(path):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < 70, function.name


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parent.name != "cli"], ids=name)
def test_functions_take_few_arguments(path: Path) -> None:
    for function in functions(path):
        given = function.args
        count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs)
        assert count <= 10, function.name


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_runs_what_a_file_says(path: Path) -> None:
    found = NEVER.search(path.read_text(encoding="utf-8"))
    assert found is None, found


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, name(path)
    assert len(docstring) > 20


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys; import rwkv_cli; heavy = {'torch', 'numpy', 'click', 'prompt_toolkit',"
        "'platformdirs', 'tokenizers'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists() -> None:
    for public in rwkv_cli.__all__:
        assert getattr(rwkv_cli, public) is not None
        assert public in dir(rwkv_cli)
    with pytest.raises(AttributeError):
        _ = rwkv_cli.nothing


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_can_be_imported(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def test_no_file_of_the_repository_is_large() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout
    tracked = [entry for entry in listing.decode().split("\0") if entry]
    if not tracked:
        pytest.skip("this is no git checkout")
    sizes = {entry: (ROOT / entry).stat().st_size for entry in tracked if (ROOT / entry).is_file()}
    assert {entry for entry, size in sizes.items() if size > SMALL} <= BIG
