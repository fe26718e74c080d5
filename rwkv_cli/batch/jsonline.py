"""One line of JSON that someone else wrote, read strictly: what is given can be written again, and
every reader of JSON will take it.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from rwkv_cli.batch.row import RowError

_MAX_VALUES = 500_000  # parsed JSON can be twenty times larger than its text
_MAX_DEPTH = 100  # far from where any reader or writer gives up
_MAX_DIGITS = 4_000  # Python refuses to write 4,301
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SHOWN = 60  # characters of what was wrong


class _BadJsonError(ValueError):
    """The line means nothing, or not one thing."""


def parse_object(line: bytes) -> dict[str, Any] | RowError:
    """Read an object of JSON; it is refused where readers differ about what it means: keys that
    stand twice, NaN, numbers too large for a float, halves of a surrogate pair.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return RowError("bad_utf8", f"invalid UTF-8 at byte {error.start + 1}")
    try:
        _check_size(line)
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        return RowError("bad_json", f"it is no JSON: {what}, at character {error.pos + 1}")
    except ValueError as error:
        return RowError("bad_json", str(error))
    if not isinstance(value, dict):
        return RowError("bad_json", f"it is {kind_name(value)}, not an object")
    if ("\\ud" in text or "\\uD" in text) and (half := _lone_surrogate(value)):
        return RowError("bad_utf8", f"\\u{ord(half):04x} is half of a surrogate pair")
    return value


def kind_name(value: object) -> str:
    """Say what a value of JSON is, with its article."""
    return _NAMES.get(type(value), "a number")


_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
_NAMES[type(None)] = "null"


def short(value: object) -> str:
    """Show a value of JSON in a message, however long it is."""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _check_size(line: bytes) -> None:
    """Refuse what would take too much memory or stack, before it is parsed."""
    if len(line) > _MAX_VALUES and sum(map(line.count, (b"{", b"[", b","))) > _MAX_VALUES:
        raise _BadJsonError(f"more than {_MAX_VALUES:,} values")
    if line.count(b"[") + line.count(b"{") <= _MAX_DEPTH:
        return
    bare = line.replace(rb"\\", b"").replace(
        rb"\"", b""
    )  # what quotation marks are left end a text
    if bare.count(b'"') > 2 * _MAX_VALUES:
        raise _BadJsonError(f"more than {_MAX_VALUES:,} values")
    outside = b"".join(bare.split(b'"')[::2]).translate(None, _NO_BRACKETS)
    depth = 0
    for mark in outside:
        depth += 1 if mark in b"[{" else -1
        if depth > _MAX_DEPTH:
            raise _BadJsonError(f"nested deeper than {_MAX_DEPTH} levels")


def _lone_surrogate(value: object) -> str | None:
    """Give the first half of a surrogate pair that stands without the other."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return error.object[error.start]
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its members."""
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen = set[str]()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    raise _BadJsonError(f"the key {short(twice)} stands twice")


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _BadJsonError(f"a number of {len(text):,} digits")
    return int(text)


def _real(text: str) -> float:
    if isfinite(value := float(text)):
        return value
    raise _BadJsonError(f"{short(text)} is too large for a number")


def _never(text: str) -> None:
    raise _BadJsonError(f"{text} is no number of JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_int=_whole, parse_float=_real, parse_constant=_never
)
