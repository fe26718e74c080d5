"""Starts the command as a user would: the installed script, or the module where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SCRIPT = Path(sys.executable).with_name("rwkv")

# The package rwkv, our oracle, installs no script, so one of that name is ours.
COMMAND: list[str] = [str(_SCRIPT)] if _SCRIPT.is_file() else [sys.executable, "-m", "rwkv_cli"]


def environment(home: Path, **changes: str | None) -> dict[str, str]:
    """Give an environment in which nothing of the person at the keyboard is read or written."""
    ours = {k for k in os.environ if k.startswith("RWKV_") and k != "RWKV_NATIVE_LIBRARY"}
    kept = {k: v for k, v in os.environ.items() if k not in ours and k != "NO_COLOR"}
    kept |= {"OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "PYTHONDONTWRITEBYTECODE": "1"}
    kept |= {"RWKV_DATA_DIR": str(home / "data"), "RWKV_CONFIG": str(home / "config.toml")}
    kept |= {"RWKV_CACHE_DIR": str(home / "cache")}
    for name, value in changes.items():
        kept.pop(name, None)
        if value is not None:
            kept[name] = value
    return kept


def rwkv(
    arguments: Sequence[Any],
    env: dict[str, str],
    stdin: bytes | int = subprocess.DEVNULL,
    timeout: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end."""
    source: Any = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    return subprocess.run(
        [*COMMAND, *arguments], env=env, capture_output=True, timeout=timeout, **source
    )


def in_shell(
    script: str, env: dict[str, str], timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which "$@" is the command."""
    return subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND], env=env, capture_output=True, timeout=timeout
    )


def start(
    arguments: Sequence[str | Path], env: dict[str, str], **streams: Any
) -> subprocess.Popen[bytes]:
    """Start the command; stdout and stderr are pipes unless told otherwise."""
    chosen: Any = {
        "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams
    }  # fmt: skip
    process: subprocess.Popen[bytes] = subprocess.Popen([*COMMAND, *arguments], env=env, **chosen)
    return process
