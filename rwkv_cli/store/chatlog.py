"""One conversation on disk: a folder of records that are only ever added.

    00000001-<id>.begin   00000002-<turn>.turn   00000003-<id>.move   …   <turn>.draft
    00000002-<turn>.end.rwkvstate   00000002-<turn>.ask.rwkvstate   base.rwkvstate

What the conversation is follows from reading its records in the order of their names. Nothing is
overwritten and every turn has a name of its own, so two processes in one conversation cannot lose
a turn: both go on from the same turn, and the tree has two branches. No lock is needed for that.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from rwkv_cli.engine.state import State
from rwkv_cli.engine.statefile import LIMIT as STATE_LIMIT
from rwkv_cli.engine.statefile import state_parts
from rwkv_cli.errors import NotFoundError, RefusedError, StorageError
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.disk import Disk, hold, is_held
from rwkv_cli.store.quarantine import set_aside
from rwkv_cli.store.records import (
    KINDS,
    LIMIT,
    Begin,
    Move,
    Name,
    Record,
    Tag,
    from_bytes,
    to_bytes,
)
from rwkv_cli.store.statefiles import Load, StateFiles
from rwkv_cli.tree import BEGINNING, Tree, Turn, new_id

Warn = Callable[[str], None]

RECORD = re.compile(r"([0-9]{8})-([0-9a-f]{8})\.(begin|turn|move|name|tag)")
_DRAFT = re.compile(r"([0-9a-f]{8})\.draft")
_BASE = "base.rwkvstate"


class ChatLog:
    """A conversation; nothing is on the disk before the first turn, or `save`.

    Args:
        folder: Where it is, or will be.
        disk: How the disk is touched.
        budget: How much room states may take.
        warn: Told what was found damaged.

    Attributes:
        id: Its name.
        begin: How it began; None before `plan`.
        tree: Its turns.
    """

    def __init__(self, folder: Path, disk: Disk, budget: Budget, warn: Warn) -> None:
        self.id, self.folder = folder.name, folder
        self.begin: Begin | None = None
        self.tree = Tree()
        self._disk, self._warn = disk, warn
        self._states = StateFiles(folder, disk, budget, warn)
        self._last = 0  # the highest number of a record
        self._seen: set[str] = set()  # names of records that are in the tree
        self._numbers: dict[str, int] = {}  # of turns
        self._waiting: list[tuple[str, Record]] = []  # not on the disk yet
        self._spent: list[Path] = []  # drafts whose turns are in the tree, but not on the disk yet
        self._moves: list[str] = []  # names of the moves written here
        self._begun = ""  # name of the record that says how it began, once it is on the disk
        self._base: State | None = None  # to be written before that record
        self._source: ChatLog | None = None
        self._writing: int | None = None  # locked draft of the answer in the making

    @property
    def unsaved(self) -> int:
        """Records that are only in memory, because the disk refused them."""
        return len(self._waiting)

    # Reading

    def read(self) -> None:
        """Read all records.

        Raises:
            NotFoundError: There is no such conversation.
            MismatchError: A newer version of this program wrote in it.
            StorageError: It cannot be read.
        """
        self._fold(move_head=True)
        if self.begin is None:
            raise NotFoundError(f"there is no conversation {self.id}", hint="rwkv chats lists them")

    def refresh(self) -> None:
        """Read what other processes added; we stay where we are in the tree."""
        self._fold(move_head=False)

    def recover(self) -> list[Turn]:
        """Make turns of answers that nobody finished, and clear away what a crash left.

        Where locks do not work, whoever writes such an answer may still live: its turn then comes
        beside the recovered one.

        Returns:
            The turns; where the disk refuses them, they are in memory.

        Raises:
            StorageError: The folder cannot be read.
        """
        found = []
        self._disk.clear(self.folder)
        for name in self._disk.names(self.folder):
            path = self.folder / name
            match = _DRAFT.fullmatch(name)
            if match is None:
                continue
            known = match[1] in self.tree.turns
            if not known and is_held(path):
                continue
            turn = None if known else self._read_record(path)
            if isinstance(turn, Turn) and self._follows(turn):
                found.append(replace(turn, id=new_id()))
                try:
                    self.add(found[-1])
                except StorageError as error:  # it is saved with the next turn, if not now
                    self._warn(error.message)
                    self._spent.append(path)
                    continue
            self._disk.discard(path)
        return found

    def drafts(self) -> list[Turn]:
        """Read answers that are not finished, without changing anything."""
        names = [n for n in self._disk.names(self.folder) if _DRAFT.fullmatch(n)]
        read = [self._read_record(self.folder / name) for name in names]
        return [t for t in read if isinstance(t, Turn) and t.id not in self.tree.turns]

    def _fold(self, *, move_head: bool) -> None:
        head = self.tree.head
        lost = []
        for name, match in self._records():
            record = self._read_record(self.folder / name)
            self._seen.add(name)
            self._last = max(self._last, int(match[1]))
            if isinstance(record, Turn) and record.id in self.tree.turns:
                continue  # written twice: it was there, but the disk failed to say so
            if isinstance(record, Turn) and (record.id != match[2] or not self._follows(record)):
                lost.append(record)
            elif record is not None:
                self._take(record, int(match[1]))
                self._begun = self._begun or (name if isinstance(record, Begin) else "")
        if not move_head:
            self.tree.head = head
        self._report(lost)

    def _records(self) -> Iterator[tuple[str, re.Match[str]]]:
        for name in self._disk.names(self.folder):
            match = RECORD.fullmatch(name)
            if match and name not in self._seen:
                yield name, match

    def _follows(self, turn: Turn) -> bool:
        known = self.tree.turns
        return turn.id not in known and (turn.parent == BEGINNING or turn.parent in known)

    def _take(self, record: Record, number: int) -> None:
        """Do again what a record says."""
        tree = self.tree
        if isinstance(record, Begin):  # there are two when two processes had to begin again
            self.begin = self.begin or record
            for turn in filter(self._follows, record.turns):
                tree.add(turn)
                self._numbers[turn.id] = number
        elif isinstance(record, Turn):
            tree.add(record)
            self._numbers[record.id] = number
        elif isinstance(record, Name):
            tree.name = record.text
        elif record.to in tree.turns or record.to == BEGINNING:
            if isinstance(record, Tag):
                tree.tags[record.tag] = record.to
            else:
                tree.head = record.to

    def _read_record(self, path: Path) -> Record | None:
        """Read a record; a damaged one is set aside."""
        try:
            return from_bytes(self._disk.read(path, LIMIT), str(path))
        except NotFoundError:  # taken away by another process
            return None
        except RefusedError as error:
            self._warn(f"{error.message}; it is set aside")
            set_aside(self._disk, path)
            return None

    def _report(self, lost: list[Turn]) -> None:
        if lost and self.begin is not None:
            self._warn(f"{len(lost)} later turns of {self.id} cannot be reached")

    # Writing

    def plan(self, begin: Begin, base: State | None = None, source: ChatLog | None = None) -> None:
        """Say how the conversation begins; it is written with the first turn.

        Args:
            begin: Model, format, and the turns it is copied with.
            base: The state it begins from; None is the one before any token.
            source: The conversation it is copied from, which may have begun from a state.
        """
        self.begin, self._base, self._source = None, base, source
        self._take(begin, 1)
        self._waiting.append((self.id, begin))

    def save(self) -> None:
        """Write what is not written yet.

        Raises:
            StorageError: The disk refused.
        """
        if self._begun and self._begun not in self._disk.names(self.folder):
            self._begin_again()
        if not self._waiting:
            return
        self._disk.make_folder(self.folder)
        if isinstance(self._waiting[0][1], Begin):
            self._write_base()
        source, self._source = self._source, None
        while self._waiting:
            self._write(*self._waiting[0])
            del self._waiting[0]
        if source is not None:
            self.adopt(source)
        while self._spent:
            self._disk.discard(self._spent.pop())

    def _begin_again(self) -> None:
        """Have everything written again: somebody deleted the conversation while it goes on here,
        and what is only added could not be found.
        """
        assert self.begin is not None
        tree = self.tree
        records: list[Record] = [
            replace(self.begin, turns=tuple(tree.turns.values())),
            *([Name(tree.name)] if tree.name else []),
            *(Tag(tag, turn) for tag, turn in tree.tags.items()),
            Move(tree.head),
        ]
        self._waiting = [(new_id(), record) for record in records]

    def _write_base(self) -> None:
        """Write the state the conversation begins from, before the record that says so."""
        path = self.folder / _BASE
        if self._base is not None:
            if path.name not in self._disk.names(self.folder):
                self._disk.publish(path, state_parts(str(path), self._base))
        elif self._source is not None and self._source.begin and self._source.begin.based:
            self._disk.publish(path, [self._disk.read(self._source.folder / _BASE, STATE_LIMIT)])

    def add(self, turn: Turn) -> None:
        """Keep a turn, and go there.

        Raises:
            StorageError: The disk refused; the turn is in memory, and will be saved with the next
                that can be.
        """
        self.tree.add(turn)
        self._commit(turn, turn.id)
        self._disk.discard(self.folder / f"{turn.id}.draft")
        self.leave()

    def leave(self) -> None:
        """Say no more that an answer is being written here."""
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def draft(self, turn: Turn) -> None:
        """Keep what there is of a turn whose answer is not finished.

        Raises:
            StorageError: The disk refused.
        """
        self.save()
        path = self.folder / f"{turn.id}.draft"
        self._disk.replace(path, [to_bytes(turn)])
        self.leave()
        self._writing = hold(path)

    def move(self, turn_id: str) -> None:
        """Go to a turn; raises as `add` does."""
        self.tree.move(turn_id)
        before, self._moves = self._moves, []
        self._commit(Move(turn_id), new_id())
        for name in before:
            self._disk.discard(self.folder / name)

    def rename(self, name: str) -> None:
        """Give the conversation a name; raises as `add` does."""
        self.tree.name = name
        self._commit(Name(name), new_id())

    def tag(self, name: str, turn_id: str) -> None:
        """Give a turn a name; raises as `add` does."""
        self.tree.tags[name] = turn_id
        self._commit(Tag(name, turn_id), new_id())

    def _commit(self, record: Record, name: str) -> None:
        """Write a record, after those that could not be written before."""
        self._waiting.append((name, record))
        self.save()

    def _write(self, name: str, record: Record) -> None:
        kind = KINDS[type(record)]
        newest = [int(m[1]) for n in self._disk.names(self.folder) if (m := RECORD.fullmatch(n))]
        number = max([self._last, *newest]) + 1
        file = f"{number:08}-{name}.{kind}"
        if not self._disk.publish(self.folder / file, [to_bytes(record)]):
            raise StorageError(f"cannot write {self.folder / file}: there is such a file already")
        self._last = number
        self._seen.add(file)
        if isinstance(record, Begin):
            self._begun = file
            self._numbers |= {turn.id: number for turn in record.turns}
        elif isinstance(record, Turn):
            self._numbers[name] = number
        elif isinstance(record, Move):
            self._moves.append(file)

    # States

    def save_state(self, turn_id: str, point: str, state: State) -> bool:
        """Keep a state of a turn.

        Returns:
            False where there is no room for it.

        Raises:
            StorageError: The disk refused.
            RefusedError: The state holds numbers that are not finite.
        """
        if turn_id not in self._numbers or self._waiting:
            return False
        return self._states.save(self._state_file(turn_id, point), state)

    def load_state(self, turn_id: str, point: str, load: Load) -> State | None:
        """Give a state that was kept; None when it was not, or cannot be used.

        Args:
            turn_id: The turn.
            point: "ask" or "end".
            load: Reads and checks a state file.
        """
        if turn_id not in self._numbers:
            return None
        if self._source is not None:  # a copy that is only planned
            return self._source.load_state(turn_id, point, load)
        ids = self.tree.tokens(turn_id)
        if point == "ask":
            ids = ids[: len(ids) - len(self.tree.turns[turn_id].reply)]
        based = self.begin is not None and self.begin.based
        return self._states.load(self._state_file(turn_id, point), load, ids, based=based)

    def held(self) -> dict[tuple[str, str], int]:
        """Tell which states are kept, with their bytes."""
        if self._source is None:
            return self._states.held()
        there = self._source.held().items()
        return {place: size for place, size in there if place[0] in self._numbers}

    def base(self, load: Load) -> State | None:
        """Give the state the conversation began from; None for the one before any token.

        Raises:
            RwkvError: It cannot be used, and nothing can take its place.
        """
        if self.begin is None or not self.begin.based:
            return None
        if self._base is None and self._source is not None:
            self._base = self._source.base(load)
        elif self._base is None:
            self._base = load(self.folder / _BASE)
        return self._base

    def adopt(self, other: ChatLog) -> None:
        """Take over the states of a conversation that this one was copied from; those that cannot
        be had are made again from their tokens.
        """
        for place in other.held():
            if place[0] in self._numbers and place[0] in other.tree.turns:
                with contextlib.suppress(OSError):
                    self._disk.link(other._state_file(*place), self._state_file(*place))

    def _state_file(self, turn_id: str, point: str) -> Path:
        return self._states.path(self._numbers[turn_id], turn_id, point)
