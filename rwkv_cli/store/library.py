"""All conversations on the disk."""

from __future__ import annotations

import contextlib
import heapq
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rwkv_cli.errors import MismatchError, NotFoundError, StorageError, UsageError
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.chatlog import RECORD, ChatLog, Warn
from rwkv_cli.store.disk import Disk
from rwkv_cli.tree import new_id

_ID = re.compile(r"[0-9a-f]{8}")


class Library:
    """The conversations in a folder.

    Args:
        folder: Where they are; made with the first.
        budget: How much room their states may take.
        disk: How the disk is touched.
        warn: Told what was found damaged.
    """

    def __init__(
        self,
        folder: Path,
        budget: Budget,
        *,
        disk: Disk | None = None,
        warn: Warn = lambda text: None,  # noqa: ARG005
    ) -> None:
        self.folder, self._budget, self._warn = folder, budget, warn
        self._disk = disk or Disk()

    def ids(self) -> list[str]:
        """List the conversations, in no order that means anything."""
        return [name for name in self._disk.names(self.folder) if _ID.fullmatch(name)]

    def new(self) -> ChatLog:
        """Choose a name for a conversation; nothing is on the disk before it starts."""
        return self._log(new_id())

    def open(self, chat: str) -> ChatLog:
        """Read a conversation.

        Raises:
            NotFoundError: There is none of that name.
            RwkvError: It cannot be read.
        """
        if not _ID.fullmatch(chat):
            raise NotFoundError(f"there is no conversation {chat}", hint="rwkv chats lists them")
        log = self._log(chat)
        log.read()
        return log

    def latest(self) -> ChatLog:
        """Read the conversation that something was added to last.

        Raises:
            NotFoundError: There is none.
            RwkvError: It cannot be read; another one would not be the one that is meant.
        """
        for chat in self._latest_first():
            with contextlib.suppress(NotFoundError):  # a folder without a beginning
                return self.open(chat)
        raise NotFoundError("there is no conversation to continue", hint="start one: rwkv chat")

    def recent(self, count: int | None = None) -> list[ChatLog]:
        """Read the conversations, the latest first; those that cannot be read are warned of.

        Args:
            count: How many at most; None is all.
        """
        found: list[ChatLog] = []
        for chat in self._latest_first():
            if count is not None and len(found) >= count:
                break
            try:
                found.append(self.open(chat))
            except NotFoundError:  # a folder without a beginning
                continue
            except (MismatchError, StorageError) as error:
                self._warn(f"{error.message}; that conversation is left out")
        return found

    def find(self, text: str) -> ChatLog:
        """Read the conversation that people call so: by its ID or the beginning of it, by its
        name, or by words that only it has.

        Raises:
            NotFoundError: There is none.
            UsageError: There are several.
        """
        ids = [chat for chat in self.ids() if len(text) > 2 and chat.startswith(text.lower())]
        if len(ids) == 1:
            return self.open(ids[0])
        logs = self.recent()
        wanted = text.casefold()
        found = [log for log in logs if log.tree.name.casefold() == wanted]
        found = found or [log for log in logs if _says(log, wanted.split())]
        if not found:
            raise NotFoundError(f"there is no conversation {text!r}", hint="rwkv chats lists them")
        if len(found) > 1:
            names = ", ".join(log.id for log in found[:5])
            raise UsageError(f"{len(found)} conversations are meant by {text!r}: {names}")
        return found[0]

    def search(self, words: Sequence[str]) -> list[ChatLog]:
        """Read the conversations in which all of some words stand, the latest first."""
        wanted = [word.casefold() for word in words]
        return [log for log in self.recent() if _says(log, wanted)]

    def remove(self, chat: str) -> None:
        """Delete a conversation with all of its states.

        Raises:
            NotFoundError: There is none of that name.
            StorageError: Something of it is still there.
        """
        if chat not in self.ids():
            raise NotFoundError(f"there is no conversation {chat}", hint="rwkv chats lists them")
        folder = self.folder / chat
        for name in self._disk.names(folder):
            self._disk.discard_all(folder / name)
        try:
            folder.rmdir()
        except OSError as error:
            raise StorageError(f"cannot delete all of {folder}: {error.strerror}") from error

    def _log(self, chat: str) -> ChatLog:
        return ChatLog(self.folder / chat, self._disk, self._budget, self._warn)

    def _latest_first(self) -> Iterator[str]:
        """Give the conversations, looking into as few as can be: a folder's own time is that of the
        last change in it, so no record in it is newer.
        """
        bounds = sorted(
            ((_modified(self.folder / chat), chat) for chat in self.ids()), reverse=True
        )
        seen: list[tuple[int, str]] = []
        for bound, chat in bounds:
            while seen and -seen[0][0] >= bound:
                yield heapq.heappop(seen)[1]
            heapq.heappush(seen, (-self._touched(chat), chat))
        while seen:
            yield heapq.heappop(seen)[1]

    def _touched(self, chat: str) -> int:
        """When a record was added last. People expect the last one they used: nothing but the
        choice of it hangs on this clock.
        """
        folder = self.folder / chat
        try:
            records = [name for name in self._disk.names(folder) if RECORD.fullmatch(name)]
        except StorageError:  # whoever opens it is told
            return _modified(folder)
        return max((_modified(folder / name) for name in records), default=0)


def _modified(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except OSError:  # taken away meanwhile
        return 0


def _says(log: ChatLog, words: Sequence[str]) -> bool:
    """Tell whether all words stand in a conversation."""
    turns = log.tree.turns.values()
    said = " ".join([log.tree.name, *(f"{turn.user} {turn.answer}" for turn in turns)]).casefold()
    return bool(words) and all(word in said for word in words)
