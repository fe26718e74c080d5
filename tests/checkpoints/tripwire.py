"""Notices what a reader must never do: run, import or write anything."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What opening and mapping a file raises, and nothing else (docs.python.org, "Audit events table").
_HARMLESS = frozenset(
    {
        "open",
        "mmap.__new__",
        "mmap.madvise",
        "ctypes.addressof",
        "ctypes.cdata",
        "ctypes.cdata/buffer",
        "object.__getattr__",
    }
)
_armed: list[list[str]] = []
_installed: list[bool] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _armed and (event not in _HARMLESS or (event == "open" and _writes(arguments))):
        _armed[-1].append(f"{event} {arguments!r}"[:200])


def _writes(arguments: tuple[object, ...]) -> bool:
    mode = arguments[1] if len(arguments) > 1 else None
    return isinstance(mode, str) and any(letter in mode for letter in "wax+")


@contextmanager
def no_side_effects() -> Iterator[list[str]]:
    """Collects every audit event that reading a file does not need; fails when there is one."""
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    events: list[str] = []
    _armed.append(events)
    try:
        yield events
    finally:
        _armed.pop()
    if events:
        raise AssertionError(f"the reader did more than read: {events}")
