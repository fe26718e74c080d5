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

from rwkv_cli.cli import doctorfiles, doctormachine
from rwkv_cli.native import build, library

PROBES = [
    "program", "engine", "library", "instructions", "threads", "memory", "compiler", "torch",
    "cuda", "nvrtc", "kernels", "models", "registry", "data", "cache", "config", "download",
    "huggingface", "terminal",
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


# Models and what is said of them


def test_models_that_cannot_be_used_are_named(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    folder = Path(env["RWKV_DATA_DIR"]) / "models"
    folder.mkdir(parents=True)
    (folder / "good.safetensors").symlink_to(tiny)
    assert asked(cli)["models"]["next"] is None
    (folder / "bad.pth").write_bytes(b"<html>")
    (folder / "lost.pth").symlink_to(tmp_path / "nowhere")
    found = asked(cli)["models"]
    assert found["installed"] == ["bad", "good"]
    assert list(found["unusable"]) == ["bad"]
    assert found["dangling"] == ["lost.pth"]
    assert found["next"] == "rwkv models show bad"
    cli("models", "default", "good")
    (folder / "good.safetensors").unlink()
    assert asked(cli)["models"]["next"] == "rwkv models default --unset"


def test_what_is_said_of_models_is_looked_at(
    cli: Cli, env: dict[str, str], tiny: Path, tmp_path: Path
) -> None:
    far = tmp_path / "far.safetensors"
    far.write_bytes(tiny.read_bytes())
    cli("models", "add", far)
    cli("models", "alias", "a", "far")
    found = asked(cli)["registry"]
    assert (found["aliases"], found["added"], found["next"]) == (1, 1, None)
    far.unlink()
    assert asked(cli)["registry"]["next"] == "rwkv models rm far"
    file = Path(env["RWKV_DATA_DIR"]) / "models.json"
    file.write_text('{"format": 99}')
    assert "newer" in asked(cli)["registry"]["result"]
    file.write_text("{")
    assert "damaged" in asked(cli)["registry"]["result"]


# Settings


def test_the_config_file_and_the_environment_are_checked(
    cli: Cli, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(env["RWKV_CONFIG"])
    file.write_text("seed = 1\ntop_p = 0.5\n")
    found = asked(cli)["config"]
    assert (found["set"], found["next"]) == (["seed", "top_p"], None)
    assert {"RWKV_CONFIG", "RWKV_DATA_DIR"} <= set(found["environment"])
    monkeypatch.setenv("RWKV_TEMPRATURE", "1")
    found = asked(cli)["config"]
    assert found["next"] == "did you mean RWKV_TEMPERATURE?"
    assert "without effect: RWKV_TEMPRATURE" in found["result"]
    for content in ("sead = 1", "temperature = -1", "x = ["):
        file.write_text(content)
        found = asked(cli)["config"]
        assert found["error"]
        assert found["next"]


# Folders and the machine


def test_a_folder_that_cannot_be_written_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    blocked = doctorfiles.folder(lambda: tmp_path / "file" / "data", "RWKV_DATA_DIR")
    assert "RWKV_DATA_DIR" in str(blocked.step)
    fine = doctorfiles.folder(lambda: tmp_path / "new" / "data", "RWKV_DATA_DIR")
    assert fine.facts["writable"] is True
    assert fine.facts["exists"] is False
    assert fine.facts["free"] > 0


def test_caches_of_other_programs_are_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models--BlinkDL--rwkv7-g1", "models--a--b", "datasets--x--y"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = asked(cli)["huggingface"]
    assert found["models"] == ["BlinkDL/rwkv7-g1", "a/b"]
    assert found["rwkv"] == ["BlinkDL/rwkv7-g1"]


# Secrets


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_no_secret_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    secret = "hf_SeCrEt"
    monkeypatch.setenv("HF_TOKEN", secret)
    for name in ("HTTPS_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://user:{secret}@proxy.example:8080/{secret}?{secret}")
    monkeypatch.setenv("HF_ENDPOINT", f"https://me:{secret}@mirror.example/{secret}")
    monkeypatch.setenv("RWKV_SYSTEM", secret)
    out = cli("doctor", *flags).out.decode()
    assert secret not in out
    assert "https://mirror.example" in out
    assert "http://proxy.example:8080" in out
    assert "HF_TOKEN" in out
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "token").write_text(secret)
    found = asked(cli)["download"]
    assert found["token"] == str(tmp_path / "token")
    assert secret not in json.dumps(found)


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://u:p@h:1/x", "http://h:1"), ("h:1", "h:1"), ("u:p@h", "h"), ("", "(no address)"),
     ("http://[::1", "(no address)"), ("http://h:99999", "(no address)"), ("::", "(no address)")],
)  # fmt: skip
def test_an_address_is_told_without_what_may_be_secret(url: str, shown: str) -> None:
    assert doctormachine.bare(url) == shown


def test_what_forbids_downloads_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in asked(cli)["download"]["next"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert asked(cli)["download"]["next"] is None
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror")
    assert "https" in asked(cli)["download"]["next"]


def test_a_probe_that_fails_stops_no_other(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("\x1b[31mboom")

    monkeypatch.setattr(doctormachine, "memory", broken)
    found = asked(cli)
    assert list(found) == PROBES
    assert "ZeroDivisionError" in found["memory"]["error"]
    assert b"\x1b" not in cli("doctor").out
