"""The states in a conversation's folder. A state is never trusted: its checksum, its model and its
tokens are compared before it is used, and without it the tokens of the turns make it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from rwkv_cli.engine.state import State
from rwkv_cli.engine.statefile import state_parts
from rwkv_cli.errors import MismatchError, NotFoundError, RefusedError, StorageError
from rwkv_cli.store.budget import Budget
from rwkv_cli.store.disk import Disk
from rwkv_cli.store.quarantine import set_aside

Load = Callable[[Path], State]

_NAME = re.compile(r"[0-9]{8}-([0-9a-f]{8})\.(ask|end)\.rwkvstate")
_AGAIN = "it is made again from its tokens"


class StateFiles:
    """Keeps states as files.

    Args:
        folder: Where they are.
        disk: How the disk is touched.
        budget: How much room they may take.
        warn: Told what was found damaged.
    """

    def __init__(
        self, folder: Path, disk: Disk, budget: Budget, warn: Callable[[str], None]
    ) -> None:
        self._folder, self._disk, self._budget, self._warn = folder, disk, budget, warn

    def path(self, number: int, turn_id: str, point: str) -> Path:
        """Give the file of a state, named like the record of its turn."""
        return self._folder / f"{number:08}-{turn_id}.{point}.rwkvstate"

    def save(self, path: Path, state: State) -> bool:
        """Keep a state; False where there is no room for it.

        Raises:
            StorageError: The disk refused.
            RefusedError: The state holds numbers that are not finite.
        """
        content = b"".join(state_parts(str(path), state))
        if not self._budget.make_room(len(content), keep=path):
            return False
        self._disk.publish(path, [content], durable=False)
        return True

    def load(self, path: Path, load: Load, ids: Sequence[int], *, based: bool) -> State | None:
        """Give a state that was kept; None when it was not, or cannot be used.

        Args:
            path: Its file.
            load: Reads and checks a state file.
            ids: The tokens it is the state of.
            based: Whether others, which no turn has, may come before them.
        """
        try:
            state = load(path)
        except NotFoundError:
            return None
        except StorageError as error:  # it may be readable at another time
            self._warn(f"{error.message}; {_AGAIN}")
            return None
        except (RefusedError, MismatchError) as error:
            self._warn(f"{error.message}; {_AGAIN}")
            set_aside(self._disk, path)
            return None
        same = list(state.tokens[-len(ids) :] if ids else ()) == list(ids)
        if not same or (state.position > len(ids) and not based):
            self._warn(f"{path}: is the state of another text; {_AGAIN}")
            set_aside(self._disk, path)
            return None
        return state

    def held(self) -> dict[tuple[str, str], int]:
        """Tell which states are kept, with their bytes."""
        found = {}
        for name in self._disk.names(self._folder):
            if match := _NAME.fullmatch(name):
                try:
                    found[match[1], match[2]] = (self._folder / name).lstat().st_size
                except OSError:  # evicted meanwhile
                    continue
        return found
