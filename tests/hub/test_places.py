"""What is here already, what there is room for, and what comes along."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub.conftest import FILE, REPO, Bench, content
from hub.liar import COMMIT

from rwkv_cli import sizes
from rwkv_cli.errors import RwkvError, StorageError, UsageError
from rwkv_cli.hub import catalogue, fetch


def cached(bench: Bench, data: bytes, repo: str = REPO, file: str = FILE) -> Path:
    """Lay a file down as the hub's own tools do."""
    root = bench.cache / ("models--" + repo.replace("/", "--"))
    blob = root / "blobs" / hashlib.sha256(bench.content).hexdigest()
    snapshot = root / "snapshots" / COMMIT
    for folder in (blob.parent, snapshot, root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    (snapshot / file).symlink_to(Path("../../blobs") / blob.name)
    (root / "refs" / "main").write_text(COMMIT)
    return blob


def bytes_asked(bench: Bench) -> list[str]:
    return [seen.path for seen in bench.liar.seen if "/api/" not in seen.path]


def test_what_the_hubs_own_tools_have_is_used_where_it_lies(bench: Bench) -> None:
    blob = cached(bench, bench.content)
    assert bench.fetch() == bench.place
    assert bench.place.is_symlink()
    assert bench.place.resolve() == blob
    assert bytes_asked(bench) == []


def test_a_link_to_what_was_deleted_from_the_cache_is_no_obstacle(bench: Bench) -> None:
    blob = cached(bench, bench.content)
    bench.fetch()
    blob.unlink()
    bench.fetch()
    assert not bench.place.is_symlink()
    assert bench.place.read_bytes() == bench.content


def test_where_links_cannot_be_made_the_path_in_the_cache_is_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*arguments: object, **named: object) -> None:
        raise OSError("no links here")

    blob = cached(bench, bench.content)
    monkeypatch.setattr(os, "symlink", no_links)
    assert bench.fetch() == blob


@pytest.mark.parametrize("how", ["short", "flipped"])
def test_a_damaged_cache_is_not_believed(bench: Bench, how: str) -> None:
    damaged = bench.content[:-1] + (b"" if how == "short" else bytes([bench.content[-1] ^ 1]))
    cached(bench, damaged)
    bench.fetch()
    assert not bench.place.is_symlink()
    assert bench.place.read_bytes() == bench.content


def test_offline_the_cache_and_the_folder_are_enough(bench: Bench) -> None:
    cached(bench, bench.content)
    assert bench.fetch(web=None) == bench.place
    shutil.rmtree(bench.cache)
    bench.place.unlink()
    bench.place.write_bytes(bench.content)
    assert bench.fetch(web=None) == bench.place
    assert bench.liar.seen == []


def test_offline_what_is_not_here_is_said_at_once(bench: Bench) -> None:
    for asked in (f"{REPO}:{FILE}", "1.5b", f"{bench.liar.cdn}/x/y/cdn/z/w.pth"):
        with pytest.raises(StorageError, match="--offline forbids"):
            bench.fetch(asked, web=None)
    assert bench.liar.seen == []


def test_a_model_of_the_catalogue_that_is_here_needs_no_network(bench: Bench) -> None:
    entry = catalogue.find("world7-0.1b")
    assert entry is not None
    assert entry.size is not None
    bench.models.mkdir()
    place = bench.models / entry.file
    with place.open("wb") as file:
        file.truncate(entry.size)
    assert bench.fetch("world7-0.1b", web=None) == place


def test_another_file_of_the_name_is_never_replaced_unasked(bench: Bench) -> None:
    bench.models.mkdir()
    bench.place.write_bytes(b"my own work")
    with pytest.raises(UsageError, match="there already"):
        bench.fetch()
    assert bench.place.read_bytes() == b"my own work"
    bench.fetch(force=True)
    assert bench.place.read_bytes() == bench.content


def test_the_same_file_without_a_note_is_known_by_its_bytes(bench: Bench) -> None:
    bench.models.mkdir()
    bench.place.write_bytes(bench.content)
    assert bench.fetch() == bench.place
    assert bytes_asked(bench) == []


def test_a_disk_without_room_is_said_before_the_first_byte(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=1_000_000)
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(StorageError, match="are free in"):
        bench.fetch()
    assert len(bytes_asked(bench)) <= 2  # the probe, at the hub and where it leads
    assert not bench.place.exists()


def test_bytes_whose_flush_failed_are_not_said_to_be_durable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes = []

    def failing(handle: int) -> None:
        flushes.append(handle)
        raise OSError(errno.EIO, "Input/output error")

    bench.liar.rate = 500_000
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(StorageError, match="input/output error"):
        bench.fetch()
    assert len(flushes) == 1
    assert not list(bench.models.rglob("*.journal"))
    assert not bench.place.exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_larger_than_the_system_allows_is_an_error(bench: Bench, ranges: bool) -> None:
    bench.liar.ranges = ranges
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write|full"):
            bench.fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not bench.place.exists()


def test_a_folder_that_cannot_be_written_is_an_error(bench: Bench) -> None:
    bench.models.write_bytes(b"a file")
    with pytest.raises(RwkvError, match="cannot make"):
        bench.fetch()


def test_the_tokenizer_comes_along_with_the_model_that_needs_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[Path] = []
    monkeypatch.setattr(fetch, "_has_20b", lambda folder: (folder / "20B_tokenizer.json").exists())
    monkeypatch.setattr(fetch, "_tokenizer_of", lambda model: here.append(model) or "20b")
    bench.liar.add("EleutherAI/gpt-neox-20b", "tokenizer.json", b'{"a": 1}')
    bench.fetch()
    assert here == [bench.place]
    assert (bench.models / "20B_tokenizer.json").read_bytes() == b'{"a": 1}'
    bench.liar.seen.clear()
    bench.fetch()
    assert bytes_asked(bench) == []


def test_the_tokenizer_goes_into_the_folder_that_needs_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_has_20b", lambda folder: (folder / "20B_tokenizer.json").exists())
    monkeypatch.setattr(fetch, "_tokenizer_of", lambda model: "20b")
    bench.liar.add("EleutherAI/gpt-neox-20b", "tokenizer.json", b'{"a": 1}')
    for name in ("config.json", "model.safetensors"):
        bench.liar.add("someone/hf", name, b"{}")
    folder = bench.fetch("someone/hf")
    assert (folder / "20B_tokenizer.json").read_bytes() == b'{"a": 1}'


def test_a_small_file_is_held_to_gits_name_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_has_20b", lambda folder: False)
    monkeypatch.setattr(fetch, "_tokenizer_of", lambda model: "20b")
    bench.liar.add("EleutherAI/gpt-neox-20b", "tokenizer.json", content(5000))
    bench.liar.listed["tokenizer.json"] = {"blobId": "a" * 40}
    with pytest.raises(RwkvError, match="wrong checksum"):
        bench.fetch()
    assert not (bench.models / "20B_tokenizer.json").exists()


def test_a_file_that_is_not_the_tokenizer_is_not_kept(bench: Bench) -> None:
    bench.liar.add("EleutherAI/gpt-neox-20b", "tokenizer.json", b"{}")
    entry = catalogue.find("raven-1.5b")
    assert entry is not None
    fetcher = bench.fetcher()
    bench.models.mkdir()
    present = fetch._has_20b(bench.models)
    if present:
        pytest.skip("a package here brings the tokenizer")
    with pytest.raises(RwkvError, match="is not the tokenizer"):
        fetcher._bring_tokenizer(bench.models / entry.file, entry)
    assert not (bench.models / "20B_tokenizer.json").exists()
