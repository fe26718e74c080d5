"""Asking before something is deleted."""

from __future__ import annotations

from collections.abc import Sequence

from rwkv_cli.errors import UsageError
from rwkv_cli.render.sanitize import safe
from rwkv_cli.render.streams import STDIN, is_terminal, note


def may_delete(command: str, lines: Sequence[str]) -> bool:
    """Ask at the terminal; say so when the answer is no.

    Args:
        command: What the user gave, for example "rwkv state rm".
        lines: What would be deleted.

    Raises:
        UsageError: Nobody can be asked.
    """
    if not is_terminal(STDIN):
        raise UsageError(f"{command} asks at a terminal", hint=f"{command} -y does not ask")
    for line in lines:
        note(f"  {safe(line)}")
    try:
        yes = input("Delete? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        note("")
        yes = False
    if not yes:
        note("Nothing was deleted.")
    return yes
