"""Markdown on a terminal: nothing is lost, nothing depends on how it comes, no style is left on."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkv_cli.render.inline import LIMIT
from rwkv_cli.render.markdown import Markdown
from rwkv_cli.render.wrap import WordWrap, columns

STYLE = re.compile(r"\x1b\[([0-9;]*)m")
SOUP = st.text("ab *`~#>|-_.1)\\\n漢 ", max_size=120)


def rendered(text: str, *, width: int = 60, cuts: list[int] | None = None) -> str:
    """Render a text that comes in pieces."""
    made = Markdown(lambda: width, coloured=True)
    places = [0, *sorted(c % (len(text) + 1) for c in cuts or []), len(text)]
    return "".join(made.feed(text[a:b]) for a, b in pairwise(places)) + made.flush()


def plain(text: str) -> str:
    """Take the styles away."""
    return STYLE.sub("", text)


@given(SOUP, st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=400)
def test_result_does_not_depend_on_the_pieces(text: str, cuts: list[int]) -> None:
    assert rendered(text, cuts=cuts) == rendered(text)


@given(SOUP)
@settings(max_examples=400)
def test_every_letter_is_shown_once_and_in_order(text: str) -> None:
    shown = plain(rendered(text))
    kept = re.sub(r"[^ab漢]", "", text)
    assert re.sub(r"[^ab漢]", "", shown) == kept


@given(SOUP)
@settings(max_examples=400)
def test_no_line_ends_in_a_style_unless_a_span_goes_on(text: str) -> None:
    shown = rendered(text)
    assert shown == "" or (shown.endswith("\n") and not _left_on(shown))


def _left_on(shown: str) -> bool:
    last = [match[1] for match in STYLE.finditer(shown)]
    return bool(last) and last[-1] not in ("0", "")


@given(st.lists(st.text("abc,.", min_size=1, max_size=8), min_size=1, max_size=40).map(" ".join))
def test_plain_text_is_merely_wrapped(text: str) -> None:
    wrap = WordWrap(lambda: 30)
    assert rendered(text, width=30) == wrap.feed(text) + wrap.flush() + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a **b c** d", "a \x1b[1mb c\x1b[0m d\n"),
        ("*a*, ***b***, ~~c~~", "\x1b[3ma\x1b[0m, \x1b[1;3mb\x1b[0m, \x1b[9mc\x1b[0m\n"),
        ("`x*y*`", "\x1b[36mx*y*\x1b[0m\n"),
        ("``a`b`` c", "\x1b[36ma`b\x1b[0m c\n"),
        ("**a *b* c**", "\x1b[1ma \x1b[1;3mb\x1b[0m\x1b[1m c\x1b[0m\n".replace("[1;3m", "[3m")),
        ("# T *i* x", "\x1b[1;4mT \x1b[3mi\x1b[0m\x1b[1;4m x\x1b[0m\n"),
        ("- a\n* b\n+ c", "• a\n• b\n• c\n"),
        ("12. a\n3) b", "12. a\n3) b\n"),
        ("> q", "\x1b[2m│ \x1b[0mq\n"),
        ("```py\nx *y*\n```\nz", "\x1b[2m```py\x1b[0m\nx *y*\n\x1b[2m```\x1b[0m\nz\n"),
        ("````\n```\n````", "\x1b[2m````\x1b[0m\n```\n\x1b[2m````\x1b[0m\n"),
    ],
)
def test_markdown_becomes_styles(text: str, shown: str) -> None:
    assert rendered(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "2 * 3 * 4", "2*3*4", "x**2 + y**3", "**kwargs and more", "a footnote*", "snake_case_name",
        "__init__", "#hashtag", "1.5 and 3", "-5 degrees", "`never closed", "** a **", "~5 to ~6",
        "a | b", "--flag", "C:\\path\\*", "~~", "*", "**a* b", "5) ", ">",
    ],
)  # fmt: skip
def test_what_looks_like_markdown_and_is_none_stays(text: str) -> None:
    expected = text.replace("\\*", "*") if text.startswith("C:") else text
    shown = plain(rendered(text)).rstrip("\n ")
    assert shown == expected.rstrip() or (text == ">" and shown == "│")


def test_a_rule_is_a_line() -> None:
    for text in ("---", "***", "___"):
        assert plain(rendered(f"{text}\na")) == "─" * 40 + "\na\n"


def test_a_table_is_set_in_columns() -> None:
    text = "| name | n |\n|---|--:|\n| **a** | 1 |\n| 漢 | 10 |\nend"
    assert plain(rendered(text)).split("\n") == [
        "name │  n", "─────┼───", "a    │  1", "漢   │ 10", "end", ""
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["| a | b\n| c\n", "| no divider |\n| below |\n", "| a | b |\n|---|---|\n| c |\n"]
)
def test_what_is_no_table_is_shown_as_it_was_written(text: str) -> None:
    assert plain(rendered(text)) == text


def test_a_table_too_wide_for_the_terminal_is_shown_as_it_was_written() -> None:
    text = "| aaaa aaaa aaaa | bbbb bbbb bbbb |\n|---|---|\n| c | d |\n"
    shown = plain(rendered(text, width=20))
    assert shown.replace("\n", " ").split() == text.replace("\n", " ").split()


def test_lines_that_go_on_hang_below_their_beginning() -> None:
    shown = plain(rendered("- " + "word " * 10 + "\n\n> " + "word " * 10, width=24)).split("\n")
    items, quotes = shown[: shown.index("")], shown[shown.index("") + 1 : -1]
    assert items[0].startswith("• word")
    assert all(line.startswith("  word") for line in items[1:])
    assert all(line.startswith("│ word") for line in quotes)
    assert all(columns(line) <= 24 for line in shown)


def test_a_span_is_not_waited_for_for_ever() -> None:
    made = Markdown(lambda: 1000, coloured=True)
    shown = made.feed("**" + "a b " * LIMIT)
    assert plain(shown).startswith("**a b")
    assert made.feed("") == ""


def test_words_appear_before_their_line_ends() -> None:
    made = Markdown(lambda: 80, coloured=True)
    assert made.feed("Some words ") == "Some words"
    assert made.feed("and **bold** ones") == " and \x1b[1mbold\x1b[0m"


def test_without_colours_code_keeps_its_marks() -> None:
    made = Markdown(lambda: 80, coloured=False)
    assert made.feed("`x` and **y**") + made.flush() == "`x` and \x1b[1my\x1b[0m\n"
