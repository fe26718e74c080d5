"""`rwkv doctor`: every finding with its next step, whatever is missing or broken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Cli

from rwkv_cli.native import build, library

PROBES = [
    "program", "engine", "library", "instructions", "threads", "compiler", "torch", "cuda", "nvrtc",
    "kernels", "models", "data", "cache", "config",
]  # fmt: skip
needs_library = pytest.mark.skipif(not library.is_available(), reason="there is no library")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """A search for the library that starts anew before and after."""
    library.forget()
    yield
    library.forget()


@pytest.fixture
def bare(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A machine with neither a library nor a compiler."""
    monkeypatch.setenv("RWKV_NATIVE_LIBRARY", str(tmp_path / "none.so"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return cli


def asked(cli: Cli, *flags: str) -> dict[str, Any]:
    result = cli("doctor", "--json", *flags)
    assert (result.code, result.err) == (0, "")
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_every_probe_has_a_line_and_an_entry(cli: Cli) -> None:
    result = cli("doctor")
    assert (result.code, result.err) == (0, "")
    lines = [line for line in result.out.decode().splitlines() if line[0] != " "]
    assert [line.split()[0] for line in lines] == PROBES
    found = asked(cli)
    assert list(found) == PROBES
    assert all(probe["result"] and "next" in probe for probe in found.values())


@needs_library
def test_with_a_library_the_native_engine_runs(cli: Cli) -> None:
    found = asked(cli)
    assert found["engine"]["engine"] == "native"
    assert found["engine"]["next"] is None
    sets = found["instructions"]["sets"]
    assert sets[0] == "generic"
    assert found["instructions"]["chosen"] == sets[-1]
    assert Path(found["library"]["path"]).is_file()
    built = cli("doctor", "--build")
    assert built.code == 0
    assert "already" in built.err


def test_without_a_library_torch_runs_and_the_next_step_is_told(bare: Cli) -> None:
    found = asked(bare)
    assert found["engine"]["engine"] == "torch"
    assert "RWKV_NATIVE_LIBRARY" in found["library"]["reason"]
    assert "RWKV_NATIVE_LIBRARY" in found["engine"]["next"]
    assert found["compiler"]["command"] is None
    assert found["instructions"]["chosen"] is None
    text = bare("doctor").out.decode()
    assert "  -> unset RWKV_NATIVE_LIBRARY" in text


def test_a_build_without_a_compiler_fails(bare: Cli) -> None:
    result = bare("doctor", "--build")
    assert (result.code, result.out) == (5, b"")
    assert "no C++ compiler" in result.err


def test_a_build_that_cannot_be_used_fails(
    bare: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build", lambda: tmp_path / "built.so")
    result = bare("doctor", "--build")
    assert result.code == 5
    assert "cannot be used" in result.err


def test_a_broken_setting_is_a_finding(cli: Cli, env: dict[str, str]) -> None:
    Path(env["RWKV_CONFIG"]).write_text("threads = 'many'")
    found = asked(cli)
    assert "threads must be a whole number" in found["threads"]["error"]


def test_threads_that_were_set_are_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKV_THREADS", "3")
    found = asked(cli)["threads"]
    assert found["chosen"] == 3
    assert found["result"].startswith("3 of ")


def test_folders_are_those_of_the_environment(cli: Cli, env: dict[str, str]) -> None:
    found = asked(cli)
    assert found["data"]["path"] == env["RWKV_DATA_DIR"]
    assert found["cache"]["path"] == env["RWKV_CACHE_DIR"]
    assert found["config"]["path"] == env["RWKV_CONFIG"]
    assert found["models"]["folder"].startswith(env["RWKV_DATA_DIR"])


def test_torch_is_told_from_its_metadata_unless_asked(cli: Cli, env: dict[str, str]) -> None:
    code = (
        "import sys; from rwkv_cli.cli.app import run; assert run(['doctor']) == 0;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    told, found = asked(cli)["torch"], asked(cli, "--torch")["torch"]
    assert told["version"] == found["version"]
    assert bool(told["cuda"]) == bool(found["cuda"])
