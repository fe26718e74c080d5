"""Conversations on disk: a folder each, a file for every committed state; the newest whole one
counts.

A commit is a new file under the next number, never a change to an old one, so a crash leaves the
last commit whole, and two processes in one conversation cannot overwrite each other: the second
finds its number taken and branches off.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.engine.state import State
from rwkv_cli.engine.statefile import read_attachments, write_new_state
from rwkv_cli.errors import NotFoundError, RefusedError, RwkvError, StorageError
from rwkv_cli.files import reason

_KEPT = 3  # committed states kept of a conversation
_NUMBER = re.compile(r"([0-9]{6,})\.rwkvstate")

Warn = Callable[[str], None]


@dataclass(slots=True)
class Chat:
    """One conversation on disk.

    Attributes:
        folder: Where its states are.
        number: The last commit; 0 before the first.
    """

    folder: Path
    number: int = 0

    @property
    def name(self) -> str:
        """What it is called."""
        return self.folder.name

    def commit(self, state: State) -> bool:
        """Save a state as the newest.

        Returns:
            False when another process had gone on with this conversation: the state is then the
                first commit of a conversation of its own, which this object stands for from now
                on.

        Raises:
            StorageError: The disk refused; earlier commits are untouched.
        """
        make_private(self.folder)
        if write_new_state(self._file(self.number + 1), state):
            self.number += 1
            self._prune()
            return True
        self.folder, self.number = new_chat(self.folder.parent).folder, 0
        self.commit(state)
        return False

    def files(self) -> list[Path]:
        """List the committed states, newest first."""
        if not self.folder.is_dir():
            return []
        found = [(int(m[1]), p) for p in self.folder.iterdir() if (m := _NUMBER.fullmatch(p.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def newest(self, load: Callable[[Path], State], warn: Warn) -> State:
        """Load the newest state that is whole; damaged ones are set aside, never deleted.

        Raises:
            NotFoundError: There is none.
            RwkvError: The newest whole one cannot be used, for example because it belongs to
                another model.
        """
        for path in self.files():
            try:
                state = load(path)
            except RefusedError as error:
                warn(f"{error.message}; going back to the turn before it")
                with contextlib.suppress(OSError):
                    path.replace(path.with_suffix(".damaged"))
                continue
            self.number = int(path.stem)
            return state
        raise NotFoundError(f"the conversation {self.name} has no saved turn")

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.rwkvstate"

    def _prune(self) -> None:
        for path in self.files()[_KEPT:]:
            with contextlib.suppress(OSError):
                path.unlink()


def new_chat(parent: Path) -> Chat:
    """Choose a folder for a new conversation; it is made with the first commit."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Chat(parent / f"{stamp}-{secrets.token_hex(2)}")


def latest_chat(parent: Path) -> Chat:
    """Find the conversation that was committed to last.

    Raises:
        NotFoundError: There is none.
    """
    chats = [Chat(folder) for folder in parent.iterdir()] if parent.is_dir() else []
    dated = [(files[0].stat().st_mtime_ns, chat) for chat in chats if (files := chat.files())]
    if not dated:
        raise NotFoundError("there is no conversation to continue", hint="start one: rwkv chat")
    return max(dated, key=lambda pair: pair[0])[1]


def model_of(chat: Chat) -> Path | None:
    """Tell which weights file a conversation was held with; None when its states do not say."""
    for path in chat.files():
        try:
            saved = json.loads(read_attachments(path).transcript)
            return Path(saved["model"]["path"])
        except (RwkvError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can open.

    Raises:
        StorageError: The disk refused, or the folder is someone else's.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {reason(error)}") from error
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        raise StorageError(f"{folder} belongs to another user")
