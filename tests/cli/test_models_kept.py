"""`rwkv models verify`, `show` and `rm`: what is known of a model, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from cli.conftest import Cli
from cli.test_models import GO, listed

from rwkv_cli.cli.modelfacts import Known
from rwkv_cli.cli.modelverify import Finding, checked
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.hub.registry import read_registry

# Checking


def test_bytes_are_compared_with_what_a_download_wrote(cli: Cli, models: Path) -> None:
    path = models / "tiny-1.5B.safetensors"
    sidecar = models / "tiny-1.5B.safetensors.json"
    assert b"no checksum is known\n" in cli("models", "verify").out
    sidecar.write_text('{"url": 3')
    told = b"no checksum is known, for tiny-1.5B.safetensors.json makes no sense"
    assert told in cli("models", "verify").out
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sidecar.write_text(
        json.dumps({"url": "u", "sha256": digest.upper(), "size": path.stat().st_size})
    )
    assert b"that of the download" in cli("models", "verify", "1.5b").out
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    result = cli("models", "verify")
    assert result.code == 6
    assert b"BAD  tiny-1.5B: the sha256" in result.out
    sidecar.write_text(json.dumps({"url": "u", "sha256": digest, "size": 5}))
    rows = [json.loads(line) for line in cli("models", "verify", "--json").out.splitlines()]
    assert [row["sound"] for row in rows] == [False, True]
    assert "bytes, not 5" in rows[0]["told"]


def test_every_file_of_a_folder_is_compared(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in ("config.json", "a.safetensors"):
        (folder / name).write_bytes(name.encode())
    rows = {
        path.name: {"size": None, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
    }
    (tmp_path / "hf.json").write_text(json.dumps({"url": "u", "files": rows}))

    def finding() -> Finding:
        model = Known("hf", folder)
        model.__dict__["_opened"] = open_model(tiny)  # the structure is another matter
        return checked(model, quiet=True)

    assert finding().sound
    assert "all 2 files" in finding().told
    (folder / "config.json").write_bytes(b"config.jsoN")
    assert "config.json" in finding().told
    assert not finding().sound
    (folder / "config.json").unlink()
    assert not finding().sound


@pytest.mark.parametrize("name", ["/dev/zero", "../hf.json", "pipe", "zero", "a\0b", "..", ""])
def test_a_note_that_leads_out_of_the_folder_or_to_a_device_is_not_followed(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    rows = {name: {"size": None, "sha256": "0" * 64}}
    (tmp_path / "hf.json").write_text(json.dumps({"url": "u", "files": rows}))
    model = Known("hf", folder)
    model.__dict__["_opened"] = open_model(tiny)
    found = checked(model, quiet=True)
    assert "no checksum is known" in found.told or "not a regular file" in found.told
    assert found.sound == (name not in ("pipe", "zero"))


def test_a_command_is_only_offered_where_a_shell_takes_it_as_it_is(cli: Cli, models: Path) -> None:
    said = {"url": "u", "sha256": "0" * 64, "file": "m.pth"}
    for repo, offered in (("some/where", True), ("some/where;id", False), ("$(id)/x", False)):
        note = json.dumps({**said, "repo": repo})
        (models / "tiny-1.5B.safetensors.json").write_text(note)
        assert ("rwkv download" in cli("models", "verify", "1.5b").err) == offered


def test_a_sidecar_that_makes_no_sense_is_none(cli: Cli, models: Path) -> None:
    for content in (b"\xff", b"[]", b"[" * 9999, b'{"url": "u", "repo": [], "size": "x"}'):
        (models / "tiny-1.5B.safetensors.json").write_bytes(content)
        assert cli("models", "verify").code == 0
        assert cli("models").code == 0
        assert cli("models", "show", "1.5b").code == 0


# Showing and removing


def test_what_belongs_to_a_model_is_told_and_goes_with_it(
    cli: Cli, models: Path, env: dict[str, str], far: Path
) -> None:
    cli("models", "alias", "daily", "1.5b")
    cli("models", "default", "1.5b")
    assert cli("state", "make", "kept", "words", "-m", "1.5b").code == 0
    assert cli("state", "make", "other", "words", "-m", far).code == 0
    assert cli("chat", "-m", "1.5b", *GO, stdin=b"hello\n").code == 0
    assert cli("generate", "-m", "1.5b", "--dtype", "int8", *GO, "hi").code == 0
    facts = json.loads(cli("models", "show", "daily", "--json").out)
    assert (facts["states"], facts["default"], facts["version"]) == (["kept"], True, "v7")
    assert len(facts["chats"]) == 1
    packed = list((Path(env["RWKV_CACHE_DIR"]) / "packed").glob("*.safetensors"))
    assert facts.get("packings", []) == [path.stem for path in packed]
    refused = cli("models", "rm", "1.5b")
    assert refused.code == 2, "nobody can be asked"
    (models / "tiny-1.5B.safetensors.json").write_text("{}")
    said = cli("models", "rm", "-y", "1.5b").err
    for part in ("1 alias (daily)", "default", "1 conversation", "1 state (kept)"):
        assert part in said
    assert list(models.iterdir()) == []
    assert not any(path.exists() for path in packed)
    assert (read_registry().aliases, read_registry().default) == ({}, None)


def test_with_a_twin_of_the_same_weights_nothing_is_lost(cli: Cli, models: Path) -> None:
    shutil.copy(models / "tiny-1.5B.safetensors", models / "twin.safetensors")
    cli("state", "make", "kept", "words", "-m", "twin")
    assert json.loads(cli("models", "show", "twin", "--json").out)["same weights"] == ["tiny-1.5B"]
    said = cli("models", "rm", "-y", "twin").err
    assert "stay here as tiny-1.5B" in said
    assert "kept" not in said


def test_a_link_goes_and_what_it_leads_to_stays(cli: Cli, models: Path, far: Path) -> None:
    (models / "linked.safetensors").symlink_to(far)
    (models / "hf").mkdir()
    for name in ("config.json", "a.safetensors"):
        (models / "hf" / name).write_bytes(b"{}")
    assert f"{far} stays" in cli("models", "rm", "-y", "linked").err
    assert far.exists()
    assert cli("models", "rm", "-y", "hf").code == 0
    assert [p.name for p in models.iterdir()] == ["tiny-1.5B.safetensors"]


def test_what_has_no_name_here_is_not_removed(cli: Cli, models: Path, far: Path) -> None:
    for name in (far, "demo", "nosuch"):
        assert cli("models", "rm", "-y", "1.5b", name).code in (2, 3)
    assert far.exists()
    assert "tiny-1.5B" in listed(cli)
