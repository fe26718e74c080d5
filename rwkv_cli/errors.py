"""The tree of errors a user can meet; each knows its exit code, none knows how it is shown.

RwkvError
├── UsageError       2   the command line or a setting is wrong
│   └── PointedError     one place in a text is wrong
├── NotFoundError    3   no such model, chat, state or file
├── MismatchError    4   a state of another model, or a newer format
├── StorageError     5   disk or network failed
├── RefusedError     6   a file is corrupt, truncated, unsafe or unsupported
├── PartialError     7   finished, but some batch rows failed
└── LimitError       8   not enough memory, or a limit was reached
"""

from __future__ import annotations

from typing import ClassVar


class RwkvError(Exception):
    """A failure with one plain sentence for the user.

    Attributes:
        message: What was wrong and why, one sentence, no trailing period needed.
        hint: What to do next, often an exact command; None when there is nothing to add.
        exit_code: The status the process ends with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RwkvError):
    """The command line or a setting is wrong."""

    exit_code = 2


class PointedError(UsageError):
    """One place in a text that a user wrote is wrong.

    Attributes:
        text: What was written.
        span: Where the wrong part of it begins and ends.
    """

    def __init__(
        self, message: str, text: str, span: tuple[int, int], *, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.text, self.span = text, span


class NotFoundError(RwkvError):
    """No such model, chat, state or file."""

    exit_code = 3


class MismatchError(RwkvError):
    """A state belongs to another model, or its format is newer than this program."""

    exit_code = 4


class StorageError(RwkvError):
    """The disk or the network failed."""

    exit_code = 5


class RefusedError(RwkvError):
    """A file is corrupt, truncated, unsafe or of an unsupported kind."""

    exit_code = 6


class PartialError(RwkvError):
    """The run finished, but some batch rows failed."""

    exit_code = 7


class LimitError(RwkvError):
    """There is not enough memory, or a limit was reached."""

    exit_code = 8
