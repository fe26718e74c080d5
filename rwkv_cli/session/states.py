"""The states of a conversation's turns: those in memory, those on the disk, and how to make one
that is neither from the nearest that is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from pathlib import Path

from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.state import Attachments, State
from rwkv_cli.session.log import ASK, END, Log
from rwkv_cli.traces import repeated
from rwkv_cli.tree import BEGINNING, Tree, Turn

Place = tuple[str, str]  # a turn, and ASK or END

_ROOM = 512_000_000  # bytes of states held in memory; the latest is held at any size


def costs(tree: Tree, held: Container[Place]) -> dict[str, int]:
    """Count for every turn the tokens that going there would read.

    Args:
        tree: The turns.
        held: Places whose states need not be made.
    """
    found = {BEGINNING: 0}
    for turn in tree.turns.values():  # parents come before those that follow them
        asked = 0 if (turn.id, ASK) in held else found[turn.parent] + len(turn.prompt)
        found[turn.id] = 0 if (turn.id, END) in held else asked + len(turn.reply)
    return found


class States:
    """Gives the state of any turn.

    Args:
        model: Reads what has to be read again.
        log: The turns, and the states on the disk.
        base: The state before the first turn; None is the state before any token.
        load: Reads a state file; the model's own way by default.
    """

    def __init__(
        self,
        model: Model,
        log: Log,
        base: State | None = None,
        load: Callable[[Path], State] | None = None,
    ) -> None:
        self._model, self._log = model, log
        self._load = load or model.load_state
        self._base = base or model.zero_state()
        self._held: OrderedDict[Place, State] = OrderedDict()
        self._unloadable: set[Place] = set()

    def move_to(self, log: Log) -> None:
        """Look for turns and states somewhere else from now on."""
        self._log = log

    def put(self, turn_id: str, point: str, state: State) -> None:
        """Hold a state in memory; from then on it belongs here and is never changed."""
        self._held[turn_id, point] = state
        self._held.move_to_end((turn_id, point))
        room = max(1, _ROOM // max(1, state.nbytes))
        while len(self._held) > room:
            self._held.popitem(last=False)

    def make(self, turn_id: str, point: str = END, progress: Progress | None = None) -> State:
        """Give a copy of the state of a turn, from memory, from the disk or by reading its tokens
        again.

        Args:
            turn_id: The turn, or BEGINNING.
            point: ASK or END.
            progress: Called with the number of tokens read.
        """
        if turn_id == BEGINNING:
            return self._base.clone()
        kept = () if (turn_id, point) in self._held else self._log.held().keys()
        for place in self._nearest(turn_id, point):
            state = self._get(place, kept)
            if state is None:
                continue
            if place != (turn_id, point):
                self._forward(state, (turn_id, point), progress)
            self.put(turn_id, point, state)
            return state.clone()
        raise AssertionError("the beginning is always held")

    def costs(self) -> dict[str, int]:
        """Count for every turn the tokens that `make` would read, with one look at the disk."""
        return costs(self._log.tree, self._held.keys() | self._log.held().keys())

    def _nearest(self, turn_id: str, point: str) -> Iterator[Place]:
        """Give the places from which one can be reached, the nearest first."""
        at: str = turn_id
        if point == END:
            yield at, END
        while at:
            yield at, ASK
            at = self._log.tree.turns[at].parent
            yield at, END

    def _get(self, place: Place, kept: Container[Place]) -> State | None:
        if place[0] == BEGINNING:
            return self._base.clone()
        if place in self._held:
            return self._held[place].clone()
        if place in self._unloadable or place not in kept:
            return None
        state = self._log.load_state(*place, self._load)
        if state is None or state.position != self._base.position + self._position(place):
            self._unloadable.add(place)
            return None
        return state

    def _position(self, place: Place) -> int:
        turn_id, point = place
        count = self._log.tree.position(turn_id)
        return count - len(self._log.tree.turns[turn_id].reply) if point == ASK else count

    def _forward(self, state: State, goal: Place, progress: Progress | None) -> None:
        """Read on from where a state is to a place that follows."""
        way = self._log.tree.path(goal[0])
        base = self._base.position
        ids = self._log.tree.tokens(goal[0])
        end = self._position(goal)
        self._model.advance_stream([ids[state.position - base : end]], state, progress)
        state.attachments = self.attachments(way, with_last=goal[1] == END)

    def attachments(self, way: list[Turn], *, with_last: bool) -> Attachments:
        """Make what travels with the state at the end of a way, from the turns alone."""
        replies = [(turn.reply, turn.sampler) for turn in (way if with_last else way[:-1])]
        made = repeated(self._model, self._base.attachments, replies)
        return made if with_last else replace(made, tail=b"")
