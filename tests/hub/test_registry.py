"""What the user says about models survives crashes, other processes and damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rwkv_cli import files
from rwkv_cli.errors import MismatchError, StorageError
from rwkv_cli.hub.registry import Registry, change_registry, read_registry, registry_file

FUZZ = int(os.environ.get("REGISTRY_EXAMPLES", "60"))

# Adds aliases of its own for as long as it is let.
WRITER = """
import sys
from dataclasses import replace
from rwkv_cli.hub.registry import change_registry
for number in range(int(sys.argv[2])):
    name = f"{sys.argv[1]}{number}"
    change_registry(lambda r: replace(r, aliases={**r.aliases, name: "demo"}))
    print(name, flush=True)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RWKV_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def alias(name: str, target: str = "demo") -> Registry:
    return change_registry(lambda r: replace(r, aliases={**r.aliases, name: target}))


def test_what_is_written_is_read(home: Path) -> None:
    assert read_registry() == Registry()
    assert not home.exists()
    said = Registry({"a": "demo", "\udcff": "/x\udcff"}, "b", {"c": "/d\n"})
    assert change_registry(lambda _: said) == said
    assert read_registry() == said


def test_what_a_newer_version_added_is_kept(home: Path) -> None:
    alias("a")
    table = json.loads(registry_file().read_text())
    registry_file().write_text(json.dumps({**table, "hues": {"x": [1, 2]}}))
    alias("b")
    assert json.loads(registry_file().read_text())["hues"] == {"x": [1, 2]}


def test_a_newer_format_is_read_as_far_as_it_goes_and_never_written(home: Path) -> None:
    alias("a")
    registry_file().write_text('{"format": 2, "aliases": {"z": "demo"}}')
    assert read_registry().aliases == {"z": "demo"}
    with pytest.raises(MismatchError, match="newer"):
        alias("b")
    registry_file().write_text('{"format": 2, "aliases": [1]}')
    assert read_registry().aliases == {}
    with pytest.raises(MismatchError, match="newer"):
        alias("b")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"{", b"[]", b'{"aliases": {}}', b'{"format": 1, "aliases": {"a": 3}}',
     b'{"format": 1, "added": []}', b'{"format": 1, "default": 3}', b"[" * 100_000,
     b'{"format": "1"}', b"9" * 5000, b'{"format": 1, "added": {"a": "\\u0000"}}',
     b'{"format": 1, "aliases": {"\\ud800": "a"}}'],
)  # fmt: skip
def test_a_damaged_file_is_named_and_set_aside_when_something_new_is_written(
    home: Path, content: bytes
) -> None:
    home.mkdir()
    registry_file().write_bytes(content)
    found = read_registry()
    assert found.damage is not None
    assert "models.json" in found.damage
    assert registry_file().read_bytes() == content, "reading changes nothing"
    assert alias("a") == Registry({"a": "demo"})
    assert (home / "models.damaged-1.json").read_bytes() == content
    registry_file().write_bytes(content)
    alias("b")
    assert (home / "models.damaged-2.json").read_bytes() == content


def test_a_file_that_cannot_be_a_registry_is_damage(home: Path) -> None:
    home.mkdir()
    with registry_file().open("wb") as file:
        file.truncate(1 << 30)
    assert "larger" in str(read_registry().damage)
    registry_file().unlink()
    registry_file().mkdir()
    assert read_registry().damage is not None
    alias("a")
    assert read_registry().aliases == {"a": "demo"}


@pytest.mark.parametrize("locks", [True, False])
def test_processes_that_write_at_once_lose_nothing(home: Path, locks: bool) -> None:
    count = 15
    without = "import rwkv_cli.files as f; f.fcntl = None\n"
    code = WRITER if locks else without + WRITER
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, name, str(count)], stdout=subprocess.PIPE, cwd=home.parent
        )
        for name in ("left", "right", "third")
    ]
    said = [line for w in writers for line in w.communicate(timeout=60)[0].decode().split()]
    kept = read_registry().aliases
    if locks:
        assert len(said) == 3 * count
        assert set(said) == set(kept)
    else:  # the file is whole, whoever was last
        assert read_registry().damage is None
        assert kept


def test_a_writer_that_is_killed_leaves_a_whole_file_and_no_lock(home: Path) -> None:
    for number in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, f"w{number}-", "100000"],
            stdout=subprocess.PIPE,
            cwd=home.parent,
        )
        assert writer.stdout is not None
        said = [writer.stdout.readline()]
        time.sleep(0.01 * number)
        writer.send_signal(signal.SIGKILL)
        said += writer.communicate()[0].splitlines(keepends=True)
        announced = {line.decode().strip() for line in said if line.endswith(b"\n")}
        assert announced <= set(alias("after").aliases)
        assert read_registry().damage is None


def test_a_process_that_stands_still_holds_up_nobody_for_ever(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    alias("a")
    with files.taking_turns(registry_file()):
        began = time.monotonic()
        assert set(alias("b").aliases) == {"a", "b"}
        assert time.monotonic() - began < 5


def test_a_disk_that_refuses_changes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alias("a")
    before = registry_file().read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        alias("b")
    assert registry_file().read_bytes() == before
    assert sorted(p.name for p in home.iterdir()) == [".models.json.lock", "models.json"]


def test_an_unchanged_registry_is_not_written(home: Path) -> None:
    alias("a")
    before = registry_file().stat().st_mtime_ns
    alias("a")
    assert registry_file().stat().st_mtime_ns == before


@settings(
    max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 200), cut=st.integers(0, 3), put=st.binary(max_size=4))
def test_a_file_with_any_bytes_changed_is_read_or_is_damaged(
    home: Path, place: int, cut: int, put: bytes
) -> None:
    home.mkdir(exist_ok=True)
    whole = (
        b'{"format": 1, "aliases": {"a": "demo"}, "added": {"b": "/b"}, "default": "b", "x": [1]}'
    )
    registry_file().write_bytes(whole[:place] + put + whole[place + cut :])
    found = read_registry()
    names = [*found.aliases.values(), *found.added.values(), found.default or ""]
    assert all(isinstance(name, str) for name in names)
    assert found.damage is None or "models.json" in found.damage
    if found.damage:
        assert (found.aliases, found.added, found.default) == ({}, {}, None)
