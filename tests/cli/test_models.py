"""`rwkv models`: what is listed, named, checked and removed, whatever lies in the folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Cli
from cli.running import COMMAND

from rwkv_cli.hub.registry import read_registry

GO = ("-N", "1", "--seed", "7", "-t", "1")
HOSTILE = "\x1b]0;title\x07[bold]\n\u202e"


def listed(cli: Cli) -> dict[str, dict[str, Any]]:
    result = cli("models", "--json")
    assert result.code == 0
    rows = [json.loads(line) for line in result.out.splitlines()]
    return {row["name"]: row for row in rows}


def default(cli: Cli) -> str:
    return cli("models", "default").out.decode().strip()


# The list


def test_the_list_tells_what_each_model_is(cli: Cli, models: Path, far: Path) -> None:
    (models / "linked.safetensors").symlink_to(far)
    (models / "tiny-1.5B.safetensors.json").write_text('{"url": "u", "repo": "some/where"}')
    cli("models", "add", far, "--name", "far")
    found = listed(cli)
    assert list(found) == ["linked", "tiny-1.5B", "far", "demo"]
    assert [found[name]["kind"] for name in found] == ["link", "file", "in place", "built in"]
    assert (found["far"]["version"], found["far"]["family"]) == ("v6", "world")
    assert found["tiny-1.5B"]["repo"] == "some/where"
    assert found["tiny-1.5B"]["size"] == (models / "tiny-1.5B.safetensors").stat().st_size
    assert found["far"]["weights"] == "fp32"
    shown = cli("models").out.decode()
    assert "some/where" in shown
    assert "in place" in shown


def test_a_file_that_is_no_model_is_shown_as_such_and_hides_no_other(
    cli: Cli, models: Path, tmp_path: Path
) -> None:
    (models / "page.pth").write_bytes(b"<!doctype html><html>")
    (models / "empty.gguf").write_bytes(b"")
    (models / "cut.safetensors").write_bytes((models / "tiny-1.5B.safetensors").read_bytes()[:999])
    (models / "gone.pth").symlink_to(tmp_path / "nowhere")
    os.mkfifo(models / "pipe.pth")
    found = listed(cli)
    assert set(found) == {"page", "empty", "cut", "tiny-1.5B", "demo"}
    assert all(found[name]["unusable"] for name in ("page", "empty", "cut"))
    assert found["tiny-1.5B"]["unusable"] is None
    assert cli("models").out.count(b"unusable: ") == 3


def test_names_that_could_drive_a_terminal_cannot(cli: Cli, models: Path) -> None:
    (models / f"{HOSTILE.replace('/', '')}.pth").write_bytes(b"x")
    (models / os.fsdecode(b"\xff.pth")).write_bytes(b"x")
    shown = cli("models").out
    assert not {b"\x1b", b"\x07", "\u202e".encode()} & {shown[i : i + 1] for i in range(len(shown))}
    assert b"[bold]" in shown
    assert len(shown.splitlines()) == 4
    assert len(cli("models", "--paths").out) > 0
    assert cli("models", "--names").out.split() == [b"tiny-1.5B", b"demo"]
    for action in ("show", "verify"):
        assert b"\x1b" not in cli("models", action, HOSTILE).err.encode()


def test_the_list_is_remembered_and_a_file_that_changed_is_read_again(
    cli: Cli, models: Path, far: Path, env: dict[str, str]
) -> None:
    first = listed(cli)
    memory = Path(env["RWKV_CACHE_DIR"]) / "headers.json"
    assert memory.is_file()
    memory.write_text(memory.read_text().replace('"v7"', '"v9"'))
    assert listed(cli)["tiny-1.5B"]["version"] == "v9", "it was read from memory"
    shutil.copy(far, models / "tiny-1.5B.safetensors")
    assert listed(cli)["tiny-1.5B"]["version"] == "v6"
    for damaged in ("", "[]", '{"x": 1}', '{"x": {"version": 1}}', "[" * 10_000):
        memory.write_text(damaged)
        assert listed(cli)["demo"] == first["demo"]
    memory.unlink()
    memory.mkdir()
    assert listed(cli)["demo"] == first["demo"]


def test_listing_models_imports_neither_numpy_nor_torch(
    env: dict[str, str], models: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from rwkv_cli.cli.app import run; assert run(['models']) == 0;"
        "assert not {'torch', 'numpy', 'prompt_toolkit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=tmp_path)


def test_flags_go_with_what_they_are_for(cli: Cli) -> None:
    for words in (
        ["ls", "--unset"], ["--yes"], ["rm", "x", "--json"], ["show", "x", "--paths"], ["ls", "x"],
        ["add"], ["alias", "x"], ["default", "a", "b"], ["default", "--unset", "a"], ["rm"],
        ["verify", "--name", "x"], ["nothing"],
    ):  # fmt: skip
        result = cli("models", *words)
        assert (result.code, result.out) == (2, b"")


# Names


@pytest.mark.parametrize(
    "command",
    [["models", "show"], ["info"], ["generate", "hi", "-m"], ["models", "verify"], ["bench", "-m"],
     ["convert", "--dtype", "int8"], ["models", "rm", "-y"]],
)  # fmt: skip
@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "..", ".", "dangling", "./dangling", "sub"])
def test_a_name_that_names_nothing_is_not_found_by_any_command(
    cli: Cli, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
    command: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "sub").mkdir()
    result = cli(*command, name)
    assert (result.code, result.out) == (3, b"")
    assert result.err.startswith("rwkv: ")


def test_an_alias_is_a_name_like_any_other(cli: Cli, models: Path, far: Path) -> None:
    assert cli("models", "alias", "daily", "1b5").code == 0
    assert cli("models", "alias", "other", far).code == 0
    shown = cli("models").out.decode()
    assert "daily = tiny-1.5B" in shown
    assert f"other = {far}" in shown
    assert cli("generate", "-m", "Daily", *GO, "hi").code == 0
    assert cli("info", "-q", "other").code == 0
    assert json.loads(cli("models", "show", "daily", "--json").out)["aliases"] == ["daily"]
    assert {"daily", "other"} <= set(cli("models", "--names").out.decode().split())
    assert cli("models", "alias", "DAILY", "demo").code == 0
    assert dict(read_registry().aliases) == {"other": str(far), "DAILY": "demo"}
    assert cli("models", "alias", "--remove", "daily").code == 0
    assert cli("models", "alias", "--remove", "daily").code == 3


@pytest.mark.parametrize(
    "name",
    ["demo", "tiny-1.5b", "", "a b", "a/b", "a:b", "-a", ".a", "~", "x" * 101, "a\nb", HOSTILE],
)
def test_a_name_that_means_something_else_cannot_be_given(
    cli: Cli, models: Path, far: Path, name: str
) -> None:
    assert cli("models", "alias", "--", name, far).code == 2
    assert cli("models", "add", far, f"--name={name}").code == 2
    assert read_registry().aliases == {}
    assert read_registry().added == {}


def test_the_default_is_used_and_comes_after_settings(
    cli: Cli, models: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default(cli) == "tiny-1.5B"
    assert cli("models", "default", "demo").code == 0
    assert default(cli) == "demo"
    assert listed(cli)["demo"]["default"] is True
    assert cli("models", "default", far).code == 2, "it has no name here"
    monkeypatch.setenv("RWKV_MODEL", "1.5b")
    result = cli("models", "default", "demo")
    assert "RWKV_MODEL" in result.err
    assert default(cli) == "tiny-1.5B"
    monkeypatch.delenv("RWKV_MODEL")
    assert cli("models", "default", "--unset").code == 0
    assert default(cli) == "tiny-1.5B"


def test_a_default_that_is_gone_is_named_and_not_replaced_unasked(cli: Cli, models: Path) -> None:
    cli("models", "default", "1.5b")
    (models / "tiny-1.5B.safetensors").unlink()
    result = cli("generate", *GO, "hi")
    assert (result.code, result.out) == (3, b"")
    assert "tiny-1.5B" in result.err
    assert "rwkv models default --unset" in result.err
    assert cli("models").code == 0
    assert cli("models", "default").code == 3


def test_a_damaged_registry_is_named_and_no_model_is_lost(
    cli: Cli, models: Path, env: dict[str, str]
) -> None:
    (Path(env["RWKV_DATA_DIR"]) / "models.json").write_text("{")
    result = cli("models")
    assert result.code == 0
    assert "models.json is damaged" in result.err
    assert b"tiny-1.5B" in result.out
    result = cli("generate", "-m", "1.5b", *GO, "hi")
    assert result.code == 0
    assert "models.json is damaged" in result.err
    assert cli("models", "alias", "a", "1.5b").code == 0
    assert "damaged" not in cli("models").err


# In place


def test_a_model_added_in_place_is_not_copied(cli: Cli, models: Path, far: Path) -> None:
    assert cli("models", "add", far).code == 0
    assert cli("models", "add", far).code == 0, "again is no failure"
    assert [p.name for p in models.iterdir()] == ["tiny-1.5B.safetensors"]
    assert cli("info", "far").code == 0
    assert cli("models", "add", far, "--name", "again").code == 2
    assert cli("models", "alias", "far", "demo").code == 2
    far.unlink()
    assert "unusable" in cli("models").out.decode()
    assert cli("info", "far").code == 3
    assert cli("models", "rm", "-y", "far").code == 0
    assert "far" not in listed(cli)


@pytest.mark.parametrize(("content", "code"), [(b"junk", 6), (b"", 6), (None, 3)])
def test_what_is_no_model_is_not_added(
    cli: Cli, models: Path, tmp_path: Path, content: bytes | None, code: int
) -> None:
    path = tmp_path / "no.pth"
    if content is not None:
        path.write_bytes(content)
    assert cli("models", "add", path).code == code
    assert read_registry().added == {}


# Completion


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("rwkv chat -m t", {"tiny-1.5B"}),
        ("rwkv chat --model d", {"demo", "daily"}),
        ("rwkv models show da", {"daily"}),
        ("rwkv info ti", {"tiny-1.5B"}),
        ("rwkv config get temp", {"temperature", "template"}),
        ("rwkv models ver", {"verify"}),
    ],
)
def test_models_and_other_names_are_completed_and_none_is_run(
    cli: Cli, models: Path, env: dict[str, str], tmp_path: Path, line: str, found: set[str]
) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    cli("models", "alias", "daily", "demo")
    for name in ("t$(touch ran).pth", "t`touch ran`.pth", "t;touch ran.pth", "t*.pth"):
        (models / name).write_bytes(b"x")
    (tmp_path / "rwkv.bash").write_bytes(cli("completion", "bash").out)
    empty = tmp_path / "empty"
    empty.mkdir()
    script = (
        'command=("$@"); rwkv() { "${command[@]}" "$@"; }; source ../rwkv.bash; '
        f"COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; _rwkv; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND],
        env=env,
        cwd=empty,
        capture_output=True,
        check=True,
    )
    assert set(result.stdout.decode().split()) == found
    assert list(empty.iterdir()) == []
