"""A manifest says what an output was made with, and what has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from batch.outputs import facts, stream_facts

from rwkv_cli.batch.manifest import (
    InputFacts,
    Manifest,
    compare,
    load,
    manifest_path,
    refuse_changed,
    save,
)
from rwkv_cli.errors import RefusedError, UsageError


def test_a_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    path = manifest_path(tmp_path / "out.jsonl")
    assert path.name == "out.jsonl.run.json"
    assert load(path) is None
    for manifest in (facts(3, seed=9, complete=3, template="t" * 64), stream_facts(errors="bad")):
        save(path, manifest)
        assert load(path) == manifest


def test_what_cannot_be_a_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl.run.json"
    for content in (b"", b"[]", b"1", b'{"format":1}', b"\xff", b"[" * 100_000, b'{"format":"1"}'):
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="is damaged"):
            load(path)
    for wrong in (
        facts(1, seed=-1),
        facts(1, layout="xml"),
        facts(1, input=InputFacts("jsonl", 1, "short")),
        facts(1, input=InputFacts("jsonl", -1, "a" * 64)),
    ):
        save(path, wrong)
        with pytest.raises(RefusedError, match="is damaged"):
            load(path)


CHANGES: list[tuple[dict[str, object], str]] = [
    ({"parameters": {"temperature": 1.0, "stop": ["\n"]}}, "temperature 0.7; now it is 1.0"),
    ({"parameters": {"temperature": 0.7}}, 'stop ["\\n"]; now it is none'),
    (
        {"parameters": {"temperature": 0.7, "stop": ["\n"], "system": "Be brief."}},
        "system none; now it is Be brief.",
    ),
    ({"model": "b" * 64, "model_name": "other"}, "model aaaaaaaaaaaa; now it is other (bbbbbbbbbb"),
    ({"numerics": "torch"}, "numerics native float32; now it is torch"),
    ({"template": "c" * 64}, "template none; now it is cccc"),
    ({"layout": "openai"}, "layout jsonl; now it is openai"),
    (
        {"input": InputFacts("jsonl", 4, "d" * 64, name="new")},
        "input in (jsonl, 3 rows, SHA-256 4e0740856",
    ),
    (
        {"input": InputFacts("jsonl", 0, "0" * 64, stream=True)},
        "now it is a stream (jsonl)",
    ),
]


@pytest.mark.parametrize(("change", "told"), CHANGES, ids=lambda value: str(value)[:20])
def test_a_change_is_told_in_words(change: dict[str, object], told: str) -> None:
    (found,) = compare(facts(3), facts(3, **change))
    assert told in found


def test_what_changes_no_text_is_no_change() -> None:
    old = facts(3, seed=4, complete=3, model_name="old")
    same = [
        replace(old, seed=None, complete=None, model_name="new"),
        replace(old, input=replace(old.input, name="moved")),
        replace(old, parameters={"stop": ("\n",), "temperature": 0.7}),
    ]
    assert [compare(old, new) for new in same] == [[], [], []]
    assert compare(stream_facts(), replace(stream_facts(), input=InputFacts(
        "jsonl", 9, "1" * 64, stream=True
    ))) == []  # fmt: skip


def test_many_changes_are_one_sentence() -> None:
    old = Manifest("a", "n", InputFacts("csv", 1, "a" * 64), {"a": 1, "b": 2, "c": 3, "d": 4})
    new = replace(old, parameters={"a": 2, "b": 3, "c": 4, "d": 5})
    with pytest.raises(UsageError) as info:
        refuse_changed(Path("out.jsonl"), old, new)
    assert info.value.message == (
        "out.jsonl was made with a 1; now it is 2, and with b 2; now it is 3,"
        " and with c 3; now it is 4, and 1 more things differ"
    )
