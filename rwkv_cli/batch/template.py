"""Prompts made of a row's fields: a text with {names} in it, and nothing cleverer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rwkv_cli.batch.row import RowError
from rwkv_cli.errors import PointedError, RefusedError
from rwkv_cli.files import read_regular

_LARGEST = 16 << 20  # bytes of a template's file
_PART = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")
_CLEVER = re.compile(r"[.:!\[\]]")
_HINT = "{name} stands for the field of a row; {{ and }} stand for braces"
_LISTED = 200  # characters of the names that a message lists


class Template:
    """A text with places for fields.

    Args:
        text: `{name}` stands for a field, `{{` and `}}` for braces.

    Attributes:
        text: As given.
        names: The fields it needs.

    Raises:
        PointedError: A brace stands alone, or there is more between two than a name.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._literals, self._fields = [""], list[str]()
        place = 0
        for part in _PART.finditer(text):
            self._literals[-1] += text[place : part.start()]
            place = part.end()
            if part[0] in ("{{", "}}"):
                self._literals[-1] += part[0][0]
            else:
                self._fields.append(_name(text, part))
                self._literals.append("")
        self._literals[-1] += text[place:]
        self.names = frozenset(self._fields)

    def head(self) -> str:
        """Give what every text made of it begins with."""
        return self._literals[0]

    def render(self, fields: Mapping[str, Any]) -> str | RowError:
        """Put fields into their places: texts as they are, all else as JSON."""
        parts = [self._literals[0]]
        for name, literal in zip(self._fields, self._literals[1:], strict=True):
            if name not in fields:
                return missing_field(name, fields)
            value = fields[name]
            parts.append(value if isinstance(value, str) else _json(value))
            parts.append(literal)
        return "".join(parts)


def missing_field(name: str, fields: Mapping[str, Any]) -> RowError:
    """Say that a row has no field of a name, and which it has."""
    has = ", ".join(fields) or "no fields"
    if len(has) > _LISTED:
        has = has[:_LISTED] + "..."
    return RowError("missing_field", f"missing field '{name}' (row has: {has})")


def template_text(given: str) -> str:
    """Give the text of a template that was given itself, or as `@FILE`; `@@` begins a text with an
    at sign. The line end that closes a file is none of the template's.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is no UTF-8, or too large.
        StorageError: It cannot be read.
    """
    if not given.startswith("@"):
        return given
    if given.startswith("@@"):
        return given[1:]
    path = Path(given[1:])
    try:
        text = read_regular(path, _LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path}: invalid UTF-8 at byte {error.start + 1}") from error
    return text.removesuffix("\n").removesuffix("\r")


def _name(text: str, part: re.Match[str]) -> str:
    """Give the name between two braces."""
    name = part[1]
    if name is None:
        twice = part[0] * 2
        raise _pointed(f"a lone {part[0]} in the template; {twice} writes one", text, part)
    if not name:
        raise _pointed("no name between braces in the template", text, part)
    if name != name.strip() or _CLEVER.search(name):
        raise _pointed("in a template, braces hold the name of a field and no more", text, part)
    return name


def _pointed(message: str, text: str, part: re.Match[str]) -> PointedError:
    """Point at a part in its line."""
    start = text.rfind("\n", 0, part.start()) + 1
    line = text[start:].partition("\n")[0]
    span = (part.start() - start, part.end() - start)
    return PointedError(message, line, span, hint=_HINT)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
