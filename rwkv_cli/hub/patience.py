"""How long to wait before trying again, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from rwkv_cli.hub.trouble import NoNameError, Trouble
from rwkv_cli.hub.watching import Watch

FIRST, LONGEST = 1.0, 60.0  # seconds between two tries
GIVE_UP = 600.0  # seconds without a byte
_TRIES = 4  # of a first question: somebody waits for it

T = TypeVar("T")


class Backoff:
    """Doubles the time between tries, until one succeeds."""

    def __init__(self) -> None:
        self._next = FIRST

    def succeeded(self) -> None:
        """Something came: begin again with short pauses."""
        self._next = FIRST

    def failed(self, error: Trouble) -> float:
        """Give the seconds to wait, which are never fewer than the server asked for."""
        pause, self._next = self._next, min(LONGEST, 2 * self._next)
        return max(pause, error.wait or 0.0)


def insist(question: Callable[[], T], watch: Watch) -> T:
    """Ask a question a few times, while its failures are such that pass.

    A name that cannot be found is not asked for again: most often there is no network.

    Raises:
        RwkvError: It failed for good, or once too often.
    """
    backoff = Backoff()
    for left in range(_TRIES - 1, -1, -1):
        try:
            return question()
        except NoNameError:
            raise
        except Trouble as error:
            pause = backoff.failed(error)
            if not left or pause > LONGEST:
                raise
            watch.say(f"{error.message}; trying again in {pause:.0f} s")
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")
