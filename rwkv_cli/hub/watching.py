"""What a download tells while it runs; `render/downloading` shows it."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Whoever is told."""

    def begin(self, name: str, total: int | None, have: int) -> None:
        """A file is about to come, of which some bytes are there."""

    def at(self, done: int, state: str = "") -> None:
        """So many bytes are there; `state` says what is waited for, if anything is."""

    def checking(self, done: int, total: int | None) -> None:
        """So many bytes were compared with what was promised."""

    def say(self, text: str) -> None:
        """A sentence that stays."""

    def end(self) -> None:
        """The file is there, or will not come."""
