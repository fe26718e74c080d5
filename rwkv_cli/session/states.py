"""The states of a conversation's turns: those in memory, those on the disk, and how to make one
that is neither from the nearest that is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from rwkv_cli.engine.model import Model, Progress
from rwkv_cli.engine.state import Attachments, State
from rwkv_cli.generation import repeated
from rwkv_cli.session.log import ASK, END, Log
from rwkv_cli.tree import BEGINNING, Turn

Place = tuple[str, str]  # a turn, and ASK or END

_ROOM = 512_000_000  # bytes of states held in memory; the latest is held at any size


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
        for place in self._nearest(turn_id, point):
            state = self._get(place)
            if state is None:
                continue
            if place != (turn_id, point):
                self._forward(state, (turn_id, point), progress)
            self.put(turn_id, point, state)
            return state.clone()
        raise AssertionError("the beginning is always held")

    def cost(self, turn_id: str, point: str = END) -> int:
        """Count the tokens that `make` would have to read; 0 when the state is held."""
        if turn_id == BEGINNING:
            return 0
        goal = self._position((turn_id, point))
        kept = self._log.held()
        for place in self._nearest(turn_id, point):
            if place[0] == BEGINNING or place in self._held or place in kept:
                return goal - self._position(place)
        return goal

    def _nearest(self, turn_id: str, point: str) -> Iterator[Place]:
        """Give the places from which one can be reached, the nearest first."""
        at: str = turn_id
        if point == END:
            yield at, END
        while at:
            yield at, ASK
            at = self._log.tree.turns[at].parent
            yield at, END

    def _get(self, place: Place) -> State | None:
        if place[0] == BEGINNING:
            return self._base.clone()
        if place in self._held:
            return self._held[place].clone()
        if place in self._unloadable or place not in self._log.held():
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
