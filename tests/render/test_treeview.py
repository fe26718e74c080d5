"""The picture of a tree: every turn once, within the width, and no deeper than it branches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.render import treeview
from rwkv_cli.render.treeview import HELD, HERE, tree_lines
from rwkv_cli.render.wrap import columns
from rwkv_cli.tree import OPEN, Tree, Turn


def _turn(name: str, parent: str, user: str = "ask", finish: str = "end") -> Turn:
    return Turn(name, parent, user, "an answer \x1b[2J of words " * 5, (1, 2), (3,), finish)


def _drawn(tree: Tree, width: int = 80) -> list[str]:
    lines = tree_lines(tree, system="", cost=lambda turn: 0 if turn == "a" else 9, width=width)
    return [line.text for line in lines]


def test_answers_of_one_message_stand_under_it() -> None:
    tree = Tree()
    tree.add(_turn("a", ""))
    for name in ("b", "c"):
        tree.add(_turn(name, "a"))
    tree.add(_turn("d", "c", "notes.txt", OPEN))
    tree.tags["here"] = "b"
    lines = _drawn(tree)
    assert [line.split()[:2] for line in lines] == [
        ["1", "you"], ["1", "rwkv"], ["2a", "you"], ["2a", "rwkv"], ["2b", "rwkv"], ["3", "file"],
    ]  # fmt: skip
    assert lines[1].endswith(f"3 tokens {HELD}")
    assert "#here" in lines[3]
    assert [line.endswith(HERE) for line in lines] == [False] * 5 + [True]
    assert not any("\x1b" in line for line in lines)


def test_a_long_chain_does_not_grow_to_the_right() -> None:
    tree = Tree()
    for number in range(300):
        tree.add(_turn(f"{number}", tree.head))
    assert len(_drawn(tree)) == 600
    assert all(not line.startswith(" ") for line in _drawn(tree))


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=12),
    st.text("ab \u4e16\U0001f600\u0301\n", max_size=60),
    st.integers(50, 200),
)
def test_lines_fit_and_every_turn_is_there(parents: list[int], text: str, width: int) -> None:
    tree, names = Tree(), [""]
    for number, place in enumerate(parents):
        names.append(f"t{number}")
        tree.add(_turn(names[-1], names[place % (number + 1)], text))
    lines = tree_lines(tree, system=text, cost=lambda _: 0, width=width)
    assert {line.turn for line in lines if line.turn} == set(names[1:])
    assert all(columns(line.text) < width + 2 * len(parents) for line in lines)


def test_of_a_long_text_the_beginning_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [0]

    def counted(text: str) -> int:
        seen[0] += len(text)
        return columns(text)

    monkeypatch.setattr(treeview, "columns", counted)
    for text in ("word " * 100_000, "\u4e16" * 100_000, " \n" * 100_000 + "\u202e" * 100_000):
        tree = Tree()
        tree.add(Turn("a", "", text, text, (1,), (2,), "end"))
        lines = _drawn(tree)
        assert all(len(line) < 90 and "\u2026" in line for line in lines)
    assert seen[0] < 5000
