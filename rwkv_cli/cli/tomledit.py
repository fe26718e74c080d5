"""Changes one setting in a config file and nothing else: comments, order and spaces stay, byte for
byte. Pure: text in, text out.

Only what a config file of ours can hold is understood, which is settings at the top, one a
statement. Whoever writes the result reads it again first and compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_VALUE = r"""(?:
    \"{3}(?:\\.|(?!\"{3})[^\\])*\"{3,5} | '{3}(?:(?!'{3}).)*'{3,5}
  | \"(?:\\.|[^\"\\\n])*\" | '[^'\n]*'
  | [^\#\r\n]*?(?=[ \t]*(?:\#|\r?\n|\r?\Z))
)"""
_STATEMENT = re.compile(
    rf"""[ \t]*(?P<key>[A-Za-z0-9_-]+|"[^"\\\n]*"|'[^'\n]*')[ \t]*=[ \t]*(?P<value>{_VALUE})
    [ \t]*(?:\#[^\n]*)?(?:\n|\Z|\r\n)""",
    re.VERBOSE | re.DOTALL,
)
_NOTHING = re.compile(r"[ \t]*(?:#[^\n]*|\r)?(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class _Statement:
    """A setting and where it stands: the whole statement with its line end, and its value."""

    key: str
    begin: int
    end: int
    value: tuple[int, int]


def with_setting(text: str, key: str, value: Any) -> str:
    """Give a setting a value: in the place of the one it has, or in a line of its own at the end of
    the settings.
    """
    literal = _literal(value)
    end = 0
    for statement in _statements(text):
        if statement.key == key:
            first, last = statement.value
            return text[:first] + literal + text[last:]
        end = statement.end
    newline = "\r\n" if "\r\n" in text else "\n"
    end = _end_of_settings(text, end)
    gap = newline if end and text[end - 1] != "\n" else ""
    return f"{text[:end]}{gap}{key} = {literal}{newline}{text[end:]}"


def without_setting(text: str, key: str) -> str:
    """Take a setting away with its line, and with the comment at the end of that."""
    for statement in _statements(text):
        if statement.key == key:
            return text[: statement.begin] + text[statement.end :]
    return text


def _statements(text: str) -> Iterator[_Statement]:
    """Find the settings, up to where something else begins."""
    at = 0
    while at < len(text):
        if nothing := _NOTHING.match(text, at):
            at = nothing.end()
            continue
        found = _STATEMENT.match(text, at)
        if found is None:
            return
        yield _Statement(found["key"].strip("\"'"), at, found.end(), found.span("value"))
        at = found.end()


def _end_of_settings(text: str, at: int) -> int:
    """Go on behind the comments after the last setting, unless a table follows them."""
    end = at
    while end < len(text):
        nothing = _NOTHING.match(text, end)
        if nothing is None:
            return at
        end = nothing.end()
    return end


def _literal(value: Any) -> str:
    """Write a value as TOML does."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
