"""Puts a text into the clipboard: with the system's own program, or else through the terminal."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess

from rwkv_cli.errors import LimitError, NotFoundError
from rwkv_cli.render.streams import STDERR, is_terminal

_PROGRAMS = (
    ("pbcopy",),
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
    ("clip.exe",),
)
_PATIENCE = 3  # seconds: a program without a display may wait for one
_MOST = 74_000  # bytes that terminals take


def copy(text: str) -> str:
    """Copy a text.

    Returns:
        Who took it, in a few words.

    Raises:
        NotFoundError: There is neither a program nor a terminal for it.
        LimitError: It is too long for a terminal.
    """
    data = text.encode("utf-8", "replace")
    for command in _PROGRAMS:
        if shutil.which(command[0]) and _taken(command, data):
            return command[0]
    if not is_terminal(STDERR):
        raise NotFoundError("there is no clipboard here")
    if len(data) > _MOST:
        raise LimitError(f"{len(data):,} bytes are too many for the terminal's clipboard")
    os.write(STDERR, b"\x1b]52;c;" + base64.b64encode(data) + b"\x07")  # xterm, OSC 52
    return "the terminal, if it allows that"


def _taken(command: tuple[str, ...], data: bytes) -> bool:
    """Tell whether a program took the text."""
    if command[0] == "clip.exe":
        data = data.decode("utf-8").encode("utf-16")
    try:
        done = subprocess.run(  # noqa: S603 - the names stand above
            command,
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
