"""Templates of prompts: names in braces, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rwkv_cli.batch.row import RowError
from rwkv_cli.batch.template import Template, template_text
from rwkv_cli.errors import NotFoundError, PointedError, RefusedError


@pytest.mark.parametrize(
    ("text", "fields", "rendered"),
    [
        ("", {}, ""),
        ("a", {}, "a"),
        ("{a}", {"a": "x"}, "x"),
        ("{a}{b}{a}", {"a": "x", "b": "y"}, "xyx"),
        ("{{a}}", {"a": "x"}, "{a}"),
        ("{{{a}}}", {"a": "x"}, "{x}"),
        ("}}{{", {}, "}{"),
        ("{a}", {"a": "{b} {{"}, "{b} {{"),
        ("{First Name}-{a-b}-{é}", {"First Name": "A", "a-b": "B", "é": "C"}, "A-B-C"),
        (
            "{a},{b},{c},{d}",
            {"a": 1.5, "b": True, "c": None, "d": 10**20},
            f"1.5,true,null,{10**20}",
        ),
        ("{a}", {"a": {"é": [1, "x"]}}, '{"é":[1,"x"]}'),
    ],
)
def test_fields_stand_for_their_names(text: str, fields: dict[str, object], rendered: str) -> None:
    assert Template(text).render(fields) == rendered


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a {b", "{"),
        ("a} b", "}"),
        ("{}", "{}"),
        ("x\nfor {a.b}:", "{a.b}"),
        ("{a[0]}", "{a[0]}"),
        ("{a!r}", "{a!r}"),
        ("{a:>9}", "{a:>9}"),
        ("{ a }", "{ a }"),
        ("{a{b}}", "{"),
        ("{a\nb}", "{"),
    ],
)
def test_what_is_no_name_is_pointed_at(text: str, wrong: str) -> None:
    with pytest.raises(PointedError) as raised:
        Template(text)
    begin, end = raised.value.span
    assert raised.value.text[begin:end] == wrong
    assert "\n" not in raised.value.text
    assert raised.value.hint


def test_any_text_can_be_written_as_a_template(tries: int) -> None:
    rng = random.Random(1)
    for _ in range(tries):
        text = "".join(rng.choices("{}ab\n", k=rng.randrange(9)))
        escaped = text.replace("{", "{{").replace("}", "}}")
        assert Template(escaped).render({}) == Template(escaped).head() == text
        assert Template(escaped + "{f}").render({"f": text}) == text * 2


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    missing = RowError("missing_field", "missing field 'text' (row has: id, txt)")
    assert Template("{id} {text}").render({"id": "1", "txt": "a"}) == missing
    long = Template("{a}").render({str(n): 1 for n in range(10_000)})
    assert isinstance(long, RowError)
    assert len(long.message) < 300


def test_the_head_is_what_all_prompts_begin_with() -> None:
    assert Template("Say {{this}}: {a} {b}").head() == "Say {this}: "
    assert Template("{a}").head() == ""


def test_a_template_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    for content in (b"A {b}\n\n", b"A {b}\n\r\n", b"\xef\xbb\xbfA {b}\n\n"):
        path.write_bytes(content)
        assert template_text(f"@{path}") == "A {b}\n"
    assert template_text("@@you: {a}") == "@you: {a}"
    assert template_text("a@b\n") == "a@b\n"
    path.write_bytes(b"\xff")
    with pytest.raises(RefusedError, match="UTF-8"):
        template_text(f"@{path}")
    with pytest.raises(NotFoundError):
        template_text(f"@{tmp_path / 'none'}")
