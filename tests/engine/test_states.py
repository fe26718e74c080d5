"""What going to a turn costs is what is read when it is gone to, and is asked of the disk once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from oracle.scripted import scripted

from rwkv_cli.engine.state import State
from rwkv_cli.session.log import ASK, END, Load, MemoryLog
from rwkv_cli.session.states import Place, States
from rwkv_cli.tree import BEGINNING, Tree, Turn


class Kept(MemoryLog):
    """Turns of which some places have a state on the disk."""

    def __init__(self, tree: Tree, places: set[Place]) -> None:
        super().__init__()
        self.tree, self._places, self.looks = tree, places, 0

    def held(self) -> dict[Place, int]:
        self.looks += 1
        return dict.fromkeys(self._places, 1)

    def load_state(self, turn_id: str, point: str, load: Load) -> State:
        turn = self.tree.turns[turn_id]
        ids = self.tree.tokens(turn_id)
        _, state = scripted([], []).prefill(ids[: -len(turn.reply)] if point == ASK else ids)
        return state


def _grown(parents: list[int]) -> Tree:
    tree, names = Tree(), [BEGINNING]
    for number, place in enumerate(parents):
        names.append(f"{number:08x}")
        prompt, reply = (2,) * (1 + number % 3), (3,) * (1 + number % 2)
        tree.add(Turn(names[-1], names[place % (number + 1)], "u", "a", prompt, reply, "end"))
    return tree


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.data())
def test_a_turn_costs_the_tokens_that_are_read(parents: list[int], data: st.DataObject) -> None:
    tree = _grown(parents)
    places = [(turn, point) for turn in tree.turns for point in (ASK, END)]
    log = Kept(tree, data.draw(st.sets(st.sampled_from(places))))
    for turn in tree.turns:
        read = [0]
        states = States(scripted([], []), log)
        cost = states.costs()[turn]
        states.make(turn, progress=read.append)
        assert read[-1] == cost
        assert states.costs()[turn] == 0


def test_the_costs_of_all_turns_take_one_look_at_the_disk() -> None:
    log = Kept(_grown(list(range(300))), set())
    states = States(scripted([], []), log)
    costs = states.costs()
    assert costs[log.tree.head] == log.tree.position()
    assert log.looks == 1
