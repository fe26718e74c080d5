"""The catalogue is sound, and what a user writes is understood or refused."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.errors import NotFoundError, RefusedError, RwkvError, UsageError
from rwkv_cli.hub import matching
from rwkv_cli.hub.catalogue import entries, find
from rwkv_cli.hub.fit import Room, fit, fitted
from rwkv_cli.hub.ranges import Ranges
from rwkv_cli.hub.wanted import parse, safe_name
from rwkv_cli.text.templates import load_template


def test_every_entry_is_sound() -> None:
    names = [matching.plain(name) for entry in entries() for name in entry.names]
    assert len(names) == len(set(names))
    for entry in entries():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repo)
        assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.version in (4, 5, 6, 7)
        assert entry.bytes > 10**8
        assert load_template(entry.family)
        assert bool(entry.file) == (entry.format != "hf")
        assert not entry.file or safe_name(entry.file)


def test_no_checksum_stands_for_two_files() -> None:
    digests = [entry.sha256 for entry in entries() if entry.sha256]
    assert len(digests) == len(set(digests))


def test_a_bare_size_is_the_newest_release_of_that_size() -> None:
    for size in ("0.1b", "0.4b", "1.5b", "2.9b", "7.2b", "13.3b"):
        entry = find(size)
        assert entry is not None
        dates = [e.date or "" for e in entries() if e.parameters == size and e.format == "pth"]
        assert entry.date == max(dates)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("1.5b", "g1-1.5b"), ("1b5", "g1-1.5b"), ("1B5", "g1-1.5b"), ("G1_1.5B", "g1-1.5b"),
        ("g1-1b5", "g1-1.5b"), ("13b3", "g1-13.3b"), ("pile-169m", "pile-169m"),
        ("rwkv7-g1k-1.5b-20260930-ctx25600.pth", "g1-1.5b"),
        ("RWKV-4-World-0.1B-v1-20230520-ctx4096", "world4-0.1b"), ("world7-0.1b", "world7-0.1b"),
    ],
)  # fmt: skip
def test_a_model_is_found_however_its_name_is_written(asked: str, name: str) -> None:
    entry = find(asked)
    assert entry is not None
    assert entry.name == name


@pytest.mark.parametrize("asked", ["", "b", "1.5", "nothing", "g1", "../1.5b", "\x00"])
def test_what_is_no_name_finds_nothing(asked: str) -> None:
    assert find(asked) is None


def test_the_catalogue_is_read_without_anything_heavy() -> None:
    code = (
        "import sys; from rwkv_cli.hub.catalogue import find; assert find('1.5b');"
        "heavy = {'numpy', 'torch', 'urllib3', 'click', 'tokenizers', 'ssl'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("asked", "repo", "file", "revision"),
    [
        ("a/b", "a/b", "", ""),
        ("a/b:c.pth", "a/b", "c.pth", ""),
        ("a/b:d/c.pth@v1", "a/b", "d/c.pth", "v1"),
        ("a/b@refs/pr/1", "a/b", "", "refs/pr/1"),
        ("a/b/d/c.pth", "a/b", "d/c.pth", ""),
        ("hf://a/b/c.pth", "a/b", "c.pth", ""),
        ("https://huggingface.co/a/b", "a/b", "", ""),
        ("https://huggingface.co/a/b/blob/main/c%25d.pth", "a/b", "c%d.pth", "main"),
        ("https://huggingface.co/a/b/resolve/v2/x/c.pth?download=true", "a/b", "x/c.pth", "v2"),
        ("https://hf.co/a/b/tree/main", "a/b", "", "main"),
    ],
)
def test_a_repository_is_understood(asked: str, repo: str, file: str, revision: str) -> None:
    wanted = parse(asked)
    assert (wanted.repo, wanted.file, wanted.revision, wanted.url) == (repo, file, revision, "")


def test_a_url_of_elsewhere_keeps_its_query_and_loses_its_fragment() -> None:
    wanted = parse("https://example.com/a b/c.pth?x=1#part")
    assert (wanted.url, wanted.file) == ("https://example.com/a%20b/c.pth?x=1", "c.pth")


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("file:///etc/passwd", UsageError), ("ftp://a/b", UsageError), ("https://", UsageError),
        ("https://a:b@example.com/c.pth", UsageError), ("https://[::1", UsageError),
        ("a/../b", UsageError), ("../b", UsageError), ("a/b@../x", UsageError), ("/a", UsageError),
        ("a/b@x y", UsageError), ("g1-1.5", NotFoundError), ("", NotFoundError),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(asked: str, error: type[RwkvError]) -> None:
    with pytest.raises(error) as caught:
        parse(asked)
    assert caught.value.hint or error is UsageError


@given(st.text(max_size=60))
def test_a_name_is_one_plain_part_of_a_path_or_refused(path: str) -> None:
    try:
        name = safe_name(path)
    except RefusedError:
        return
    assert name == path.split("/")[-1]
    assert not set(name) & set('/\\:\0\n\x1b*?"<>|')
    assert not name.startswith(".")


spans = st.tuples(st.integers(0, 60), st.integers(0, 60))


@given(st.lists(spans, max_size=12), st.integers(1, 60))
def test_ranges_are_the_bytes_that_were_added(added: list[tuple[int, int]], size: int) -> None:
    ranges, there = Ranges(), set[int]()
    for begin, end in added:
        ranges.add(begin, end)
        there |= set(range(begin, end))
    assert ranges.total == len(there)
    assert {n for b, e in ranges.to_list() for n in range(b, e)} == there
    gaps = {n for b, e in ranges.gaps(size) for n in range(b, e)}
    assert gaps == set(range(size)) - there
    front = next(n for n in range(100) if n not in there)
    assert ranges.front == front
    bounds = [bound for pair in ranges.to_list() for bound in pair]
    assert bounds == sorted(set(bounds))  # they do not touch


@given(st.integers(10**8, 10**11), st.integers(0, 10**11))
def test_the_recommended_model_fits_and_there_is_one_if_any_does(memory: int, disk: int) -> None:
    room = Room(memory, disk)
    rows = fitted(entries(), room)
    assert {entry for entry, _ in rows} == set(entries())
    chosen = [entry for entry, how in rows if how.recommended]
    assert len(chosen) == any(how.runs for _, how in rows)
    for entry in chosen:
        assert fit(entry, room).runs
    runs = [how.runs for _, how in rows]
    assert runs == sorted(runs, reverse=True)


def test_a_card_has_room_for_what_memory_has_not() -> None:
    entry = find("7.2b")
    assert entry is not None
    assert fit(entry, Room(8 * 10**9, 10**12)).how == "int4"
    assert fit(entry, Room(8 * 10**9, 10**12, card=24 * 10**9)).how == "fits"
    assert fit(entry, Room(64 * 10**9, 10**9)).how == "disk"
    assert fit(entry, Room(64 * 10**9, None)).how == "fits"
