"""Turns are found by every name they have, and the tree only grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.tree import BEGINNING, Tree, Turn, new_id


def _grown(parents: list[int]) -> Tree:
    tree, names = Tree(), [BEGINNING]
    for number, place in enumerate(parents):
        names.append(new_id())
        prompt, reply = (number,), (number, number)
        tree.add(Turn(names[-1], names[place % (number + 1)], "u", "a", prompt, reply, "end"))
    return tree


trees = st.lists(st.integers(0, 40), min_size=1, max_size=40).map(_grown)


@given(trees)
def test_every_turn_is_found_by_its_label_and_its_name(tree: Tree) -> None:
    for turn in tree.turns:
        assert tree.find(turn) == turn
        tree.tags["tag"] = turn
        assert tree.find("tag") == turn
        assert tree.find(tree.label(turn)) == turn
    assert tree.find("0") == BEGINNING


@given(trees)
def test_a_number_means_the_way_to_where_we_are(tree: Tree) -> None:
    for number, turn in enumerate(tree.path(), 1):
        assert tree.find(str(number)) == turn.id


@given(trees)
def test_the_tokens_of_a_way_are_those_of_its_turns(tree: Tree) -> None:
    for turn in tree.turns:
        way = tree.path(turn)
        assert list(tree.tokens(turn)) == [i for t in way for i in (*t.prompt, *t.reply)]
        assert tree.position(turn) == len(tree.tokens(turn))
        assert way[-1].id == turn
        assert way[0].parent == BEGINNING


def test_what_is_not_there_is_said() -> None:
    tree = _grown([0, 0])
    with pytest.raises(NotFoundError):
        tree.find("7")
    with pytest.raises(NotFoundError):
        tree.move("x")
    with pytest.raises(UsageError):
        tree.add(Turn("x", "nobody", "", "", (), (), ""))
    with pytest.raises(UsageError):
        tree.add(tree.path()[0])


def test_letters_go_on_after_z() -> None:
    tree = _grown([0] * 28)
    assert [tree.label(turn) for turn in list(tree.turns)[24:]] == ["1y", "1z", "1aa", "1ab"]


def test_a_long_conversation_is_labelled_however_its_tree_was_made() -> None:
    tree = _grown(list(range(3000)))
    copy = Tree(dict(tree.turns), tree.head)
    assert copy.label(copy.head) == "3000"
