"""What a download promises when nothing goes wrong."""

from __future__ import annotations

import hashlib
import json

import pytest
from hub.conftest import FILE, REPO, Bench, content

from rwkv_cli.errors import RwkvError


def test_a_file_arrives_whole_under_its_name_with_a_note_beside_it(bench: Bench) -> None:
    assert bench.fetch() == bench.place
    assert bench.place.read_bytes() == bench.content
    note = json.loads((bench.models / f"{FILE}.json").read_text())
    assert note["sha256"] == hashlib.sha256(bench.content).hexdigest()
    assert (note["repo"], note["file"], note["size"]) == (REPO, FILE, len(bench.content))
    assert (note["license"], note["revision"], note["verified"]) == ("apache-2.0", "c" * 40, True)
    assert bench.litter() == [f"{FILE}.json"]


def test_what_is_told_never_goes_back_and_ends_at_the_whole(bench: Bench) -> None:
    bench.fetch()
    assert bench.log.done == sorted(bench.log.done)
    assert bench.log.done[-1] == len(bench.content)


def test_a_file_that_is_here_is_not_fetched_again(bench: Bench) -> None:
    bench.fetch()
    bench.liar.seen.clear()
    bench.fetch()
    assert [seen.path for seen in bench.liar.seen if "/resolve/" in seen.path] == []


def test_an_empty_file_is_no_reason_to_hang(bench: Bench) -> None:
    bench.liar.add(REPO, "one.pth", b"x")
    assert bench.fetch(f"{REPO}:one.pth").read_bytes() == b"x"


def test_a_server_without_ranges_still_works(bench: Bench) -> None:
    bench.liar.ranges = False
    bench.fetch()
    assert bench.place.read_bytes() == bench.content


def test_a_mirror_without_an_api_is_enough_for_a_file_of_the_catalogue(bench: Bench) -> None:
    bench.liar.api = False
    name = "rwkv7-g1d-0.1b-20260129-ctx8192.pth"
    data = bench.liar.add("BlinkDL/rwkv7-g1", name, content(300_000))
    assert bench.fetch("0.1b").read_bytes() == data


def test_without_an_api_the_digest_that_the_hub_itself_names_is_held_to(bench: Bench) -> None:
    bench.liar.api = False
    bench.fetch()
    note = json.loads((bench.models / f"{FILE}.json").read_text())
    assert (note["verified"], note["revision"]) == (True, "c" * 40)


def test_a_url_of_anywhere_is_fetched_and_not_called_verified(bench: Bench) -> None:
    bench.fetch(f"{bench.liar.cdn}/{REPO}/cdn/x/{FILE}?token=1")
    note = json.loads((bench.models / f"{FILE}.json").read_text())
    assert bench.place.read_bytes() == bench.content
    assert (note["verified"], note["repo"]) == (False, None)
    assert any("could not be checked" in text for text in bench.log.said)


def test_a_folder_appears_when_all_of_its_files_are_there(bench: Bench) -> None:
    files = {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": content(200_000, 2),
        "model-00002-of-00002.safetensors": content(100_000, 3),
        "README.md": b"not wanted",
        "run.py": b"not wanted",
    }
    for name, data in files.items():
        bench.liar.add("someone/folder", name, data)
    place = bench.fetch("someone/folder")
    wanted = {name for name in files if not name.endswith((".md", ".py"))}
    assert place == bench.models / "folder"
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        name: files[name] for name in wanted
    }
    bench.liar.seen.clear()
    assert bench.fetch("someone/folder") == place
    assert len(bench.liar.seen) == 1


def test_a_folder_that_was_interrupted_has_the_digests_of_all_its_files(bench: Bench) -> None:
    weights = content(100_000, 2)
    bench.liar.add("someone/folder", "config.json", b"{}")
    bench.liar.add("someone/folder", "model.safetensors", weights)
    bench.liar.listed["model.safetensors"] = {"lfs": {"sha256": "a" * 64, "size": len(weights)}}
    with pytest.raises(RwkvError, match="wrong checksum"):
        bench.fetch("someone/folder")
    bench.liar.listed.clear()
    bench.fetch("someone/folder")
    files = json.loads((bench.models / "folder.json").read_text())["files"]
    assert {name: row["sha256"] for name, row in files.items()} == {
        "config.json": hashlib.sha256(b"{}").hexdigest(),
        "model.safetensors": hashlib.sha256(weights).hexdigest(),
    }
