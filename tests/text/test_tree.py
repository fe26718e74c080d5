"""Turns are found by every name they have, and the tree only grows."""

from __future__ import annotations

from collections.abc import Iterator, ValuesView

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
    for number in ("7", "0000000001", "0000000012", "1" * 400):
        with pytest.raises(NotFoundError):
            tree.find(number)
    with pytest.raises(NotFoundError):
        tree.move("x")
    with pytest.raises(UsageError):
        tree.add(Turn("x", "nobody", "", "", (), (), ""))
    with pytest.raises(UsageError):
        tree.add(tree.path()[0])


def test_letters_go_on_after_z() -> None:
    tree = _grown([0] * 28)
    assert [tree.label(turn) for turn in list(tree.turns)[24:]] == ["1y", "1z", "1aa", "1ab"]


class _Counted(dict[str, Turn]):
    """Turns that count how often one of them is looked at."""

    looks = 0

    def __getitem__(self, name: str) -> Turn:
        self.looks += 1
        return super().__getitem__(name)

    def values(self) -> ValuesView[Turn]:
        self.looks += len(self)
        return super().values()

    def __iter__(self) -> Iterator[str]:
        self.looks += len(self)
        return super().__iter__()


def test_a_turn_is_placed_without_a_look_at_all_of_them() -> None:
    turns = _Counted(_grown(list(range(500))).turns)
    tree = Tree(turns, next(reversed(turns)))
    following = tree.following()
    for turn in list(turns):
        assert len(following[turn]) == (turn != tree.head)
        assert tree.position(turn) == 3 * tree.depth(turn)
        assert tree.label(turn) == str(tree.depth(turn))
    assert turns.looks < 20 * len(turns)


def test_a_long_conversation_is_labelled_however_its_tree_was_made() -> None:
    tree = _grown(list(range(3000)))
    copy = Tree(dict(tree.turns), tree.head)
    assert copy.label(copy.head) == "3000"
