"""A long paste stands in the line as a mark, and is sent as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.render.pastes import LONGEST, Pastes

TEXTS = st.text("ab[]\n", max_size=60)


@given(st.lists(TEXTS, max_size=6), TEXTS)
def test_what_is_folded_is_sent_as_it_was(texts: list[str], typed: str) -> None:
    pastes = Pastes()
    line = typed.join(map(pastes.fold, texts))
    assert pastes.unfold(line) == typed.join(texts)


def test_only_long_pastes_are_folded() -> None:
    pastes = Pastes()
    short, long = "\n".join("x" * LONGEST), "\n".join("y" * 500)
    assert pastes.fold(short) == short
    assert pastes.fold(long) == "[pasted 500 lines]"
    assert pastes.fold(long.replace("y", "z")) == "[pasted 500 lines, no. 2]"
    assert pastes.fold(long) == "[pasted 500 lines]"
    assert pastes.unfold("a [pasted 500 lines, no. 2] b") == f"a {long.replace('y', 'z')} b"


def test_line_ends_of_other_systems_become_ours() -> None:
    assert Pastes().fold("a\r\nb\rc") == "a\nb\nc"
