"""States that the user named: files in one folder, never evicted."""

from __future__ import annotations

import re
from pathlib import Path

from rwkv_cli.errors import NotFoundError, UsageError
from rwkv_cli.places import states_folder

SUFFIX = ".rwkvstate"

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def path_for(name: str) -> Path:
    """Give the file of a state by its name.

    Raises:
        UsageError: That is no name.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name[:120]!r} is no name for a state",
            hint="up to 100 letters, digits, dots, - and _ make one",
        )
    if name.endswith(SUFFIX):
        raise UsageError(f"a state's name does not end in {SUFFIX}", hint="that is for its file")
    return states_folder() / f"{name}{SUFFIX}"


def find_state(text: str) -> Path:
    """Give the file of a state, which is called by its name or its path.

    Raises:
        NotFoundError: There is none.
    """
    path = Path(text)
    if path.exists() or path.suffix == SUFFIX or len(path.parts) > 1:
        return path
    if NAME.fullmatch(text) and path_for(text).is_file():
        return path_for(text)
    known = f"; there are: {', '.join(named_states())}" if named_states() else ""
    raise NotFoundError(f"there is no state {text!r}{known}", hint="make one: rwkv state make NAME")


def named_states() -> dict[str, Path]:
    """List the named states."""
    folder = states_folder()
    if not folder.is_dir():
        return {}
    files = sorted(folder.glob(f"*{SUFFIX}"))
    return {path.name.removesuffix(SUFFIX): path for path in files if NAME.fullmatch(path.stem)}
