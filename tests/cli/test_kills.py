"""The chat is killed at any moment: every turn after which the next prompt appeared is found again.

STORE_KILLS=300 pytest -s tests/cli/test_kills.py
"""

from __future__ import annotations

import itertools
import os
import random
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli.running import COMMAND, environment, rwkv
from cli.terminal import Terminal

from rwkv_cli.engine.statefile import verify_state
from rwkv_cli.errors import NotFoundError
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.chatlog import ChatLog
from rwkv_cli.store.library import Library
from rwkv_cli.tree import Turn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")

_KILLS = int(os.environ.get("STORE_KILLS", "5"))
_ROUNDS = 20  # after so many kills another conversation is begun

# A line is asked for when the terminal is told to bracket pastes, and was sent when that ends.
_PROMPT, _SENT = b"\x1b[?2004h", b"\x1b[?2004l"
_WORD = re.compile(rb"[A-Za-z]{2}")

_HALF = "half a mess"  # typed, but never sent

# Without line ends an answer goes on for more than a second, so that it is saved on its way.
_ENDLESS = ("--ban", "0", "--ban", "199", "-N", "6000")
_SHORT = ("-N", "10")  # what was saved so becomes a turn at the first answer after it


class Store:
    """What is on the disk, and what was announced to be there.

    Attributes:
        turns, tags: Announced, by conversation.
        owed: Beginnings of answers that are on the disk, and have to become turns.
        counts: Of kills, by what they hit, and of turns.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.env = environment(home, PROMPT_TOOLKIT_NO_CPR="1")
        self.folder = Path(self.env["RWKV_DATA_DIR"]) / "chats"
        self.turns: dict[str, dict[str, Turn]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.owed: list[Turn] = []
        self.counts: Counter[str] = Counter()
        self._proven: set[Path] = set()

    def library(self, warnings: list[str]) -> Library:
        return Library(self.folder, Budget(self.folder), warn=warnings.append)

    def check(self, chat: str) -> ChatLog:
        """Read a conversation anew: all that was announced is there, and all that is there is
        whole.
        """
        warnings: list[str] = []
        log = self.library(warnings).open(chat)
        for turn_id, turn in self.turns.get(chat, {}).items():
            assert log.tree.turns.get(turn_id) == turn
        assert self.tags.get(chat, {}).items() <= log.tree.tags.items()
        self.owed = log.drafts()
        for path in {*self.folder.parent.parent.rglob("*.rwkvstate")} - self._proven:
            verify_state(path)
            self._proven.add(path)
        assert warnings == []
        assert not (self.folder / "quarantine").exists()
        return log


class Round:
    """One process, from its start to its violent end."""

    def __init__(self, store: Store, terminal: Terminal) -> None:
        self._store, self._terminal = store, terminal
        self.log: ChatLog | None = None
        self.prompts = self.sent = self.noted = 0
        self.line, self.head = "", ""

    def run(self, lines: Iterator[str]) -> None:
        """Type line after line, and note what is announced, until the process is dead."""
        while self._prompt_came():
            self._announced()
            line = next(lines)
            if line == _HALF:
                self._send(line)
                self._terminal.process.wait()
                return
            self.line = line
            self.sent += 1
            self._send(line + "\r")

    def _send(self, text: str) -> None:
        with suppress(OSError):  # it was killed meanwhile
            self._terminal.send(text.encode())

    def _prompt_came(self) -> bool:
        """Wait for the next prompt; False when there will be none. A dead process may have shown
        one before.
        """
        terminal = self._terminal
        while terminal.process.poll() is None:
            terminal.pump(0.02)
            self.prompts = terminal.output.count(_PROMPT)
            if self.prompts > self.sent:
                return True
        while terminal.pump(0):
            pass
        self.prompts = terminal.output.count(_PROMPT)
        return False

    def _announced(self) -> None:
        """The next prompt appeared after a line: take note of what the disk has."""
        if self.noted == self.sent:
            return
        self.noted = self.sent
        if self.log is None:
            self.log = self._store.library([]).latest()
            before = len(self._store.turns.get(self.log.id, {}))
        else:
            before = len(self.log.tree.turns)
            self.log.refresh()
        self._expect(self.log, before)
        turns = self._store.turns.setdefault(self.log.id, {})
        self._store.counts["turns"] += len(self.log.tree.turns) - len(turns)
        turns |= self.log.tree.turns
        self._store.tags.setdefault(self.log.id, {}).update(self.log.tree.tags)

    def _expect(self, log: ChatLog, before: int) -> None:
        """What the last line asked for is on the disk."""
        tree = log.tree
        if self.line == "/undo":
            self.head = tree.turns[self.head].parent
        elif self.line.startswith("/tag"):
            assert tree.tags[self.line.split()[1]] == self.head
        else:
            assert len(tree.turns) > before
            *_, newest = tree.turns.values()
            self.head = newest.id
            assert self.line in ("/retry", newest.user)
            said = {(turn.user, turn.answer, turn.reply) for turn in tree.turns.values()}
            assert {(turn.user, turn.answer, turn.reply) for turn in self._store.owed} <= said
            self._store.counts["recovered"] += len(self._store.owed)
            self._store.owed = []

    def died(self) -> str:
        """Tell what the kill hit; what appeared before it counts as announced."""
        if not self.prompts:
            return "starting"
        if self.prompts > self.sent:
            self._announced()
            return "prompt"
        if self.line[:5] in ("/undo", "/tag "):
            return "command"
        output = bytes(self._terminal.output)
        started = output.count(_SENT) >= self.sent
        shown = _WORD.search(re.sub(rb"\x1b\[[^a-zA-Z]*[a-zA-Z]", b"", output.rpartition(_SENT)[2]))
        return "answer" if started and shown else "message"


def _lines(dice: random.Random) -> Iterator[str]:
    """Make up what is typed, no message twice."""
    for number in itertools.count():
        if dice.random() < 0.02:
            yield _HALF
        yield f"Tell me a story, {dice.getrandbits(64):x}."
        yield "/retry"
        yield "/undo"
        yield f"/tag t{dice.getrandbits(64):x}"
        if number % 3 == 2:
            yield f"Who are you, {dice.getrandbits(64):x}?"


def _kill(store: Store, flags: list[str], delay: float, dice: random.Random) -> None:
    """Start the chat, let it work, kill it, and look at what it leaves."""
    terminal = Terminal([*COMMAND, "chat", *flags], store.env, drawn=False)
    timer = threading.Timer(delay, terminal.process.kill)
    with terminal:
        timer.start()
        played = Round(store, terminal)
        played.run(_lines(dice))
        timer.join()
        assert terminal.process.wait() == -9, bytes(terminal.output[-2000:])
        what = played.died()
    store.counts[what] += 1
    if played.log is not None:
        left = store.check(played.log.id)
        if what == "prompt":
            assert left.tree.head == played.head


def _flags(store: Store, number: int) -> list[str]:
    """Go on with the last conversation, if there is one; now and then begin another."""
    with suppress(NotFoundError):
        chat = store.library([]).latest().id
        if number % _ROUNDS:
            store.check(chat)
            store.counts["drafts"] += len(store.owed)
            return ["-c"]
    store.owed = []
    return []


def test_a_killed_chat_loses_no_turn_that_was_announced(tmp_path: Path) -> None:
    dice = random.Random(11)
    stores = {name: Store(tmp_path / name) for name in ("usual", "endless")}
    for number in range(_KILLS):
        endless = number % 5 == 4
        store = stores["endless" if endless else "usual"]
        flags = _flags(store, number // 5 if endless else number)
        if endless:
            flags += _ENDLESS if number % 2 == 0 else _SHORT
        _kill(store, flags, dice.uniform(0, 3 if endless else 1.5), dice)
    for name, store in stores.items():
        sys.stdout.write(f"{name}: {dict(store.counts)}\n")
        for chat in store.turns:
            store.check(chat)
        if store.turns:
            result = rwkv(["chat", "-c", "-q", "-N", "5", "Are you there?"], store.env)
            assert (result.returncode, result.stderr) == (0, b"")
