"""What the kernels take, read from the CUDA sources themselves.

A kernel takes one structure. Were it written down again in Python, the two would drift apart and a
kernel would read garbage; so the sources are the only place, kept plain enough to be read here:
what stands in `KERNEL(name, Arguments, threads)`, and of each such `struct`, and of those that it
holds or points to, fields that are numbers, pointers, structures, and arrays of a constant size.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

from rwkv_cli.errors import RwkvError
from rwkv_cli.native.cuda.numbers import known_numbers, value_of
from rwkv_cli.native.cuda.source import headers

_NUMBERS: dict[str, Any] = {
    "u8": ctypes.c_uint8,
    "u16": ctypes.c_uint16,
    "int": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}
_NEWLINE = "\n"

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|^[ \t]*#(?:\\\n|[^\n])*", re.DOTALL | re.MULTILINE)
_KERNEL = re.compile(
    r"^[ \t]*KERNEL(?:_TOGETHER)?\s*\(\s*(\w+)\s*,\s*(\w+)\s*,([^,)]+)(?:,[^)]*)?\)", re.MULTILINE
)
_STRUCT = re.compile(r"(template\s*<[^;{}]*>\s*)?\bstruct\s+(\w+)\s*\{([^{}()]*)\}\s*;")
_FIELD = re.compile(r"(?:const\s+)?(\w+)\b(.*)", re.DOTALL)
_NAME = re.compile(r"((?:\s*\*\s*(?:const\b)?)*)\s*\b(\w+)\s*((?:\[[^\]]*\]\s*)*)")


class SourceError(RwkvError):
    """A structure in the CUDA sources is not as plain as it must be; it names file and line."""


@dataclass(frozen=True, slots=True)
class Signature:
    """How a kernel is launched.

    Attributes:
        arguments: The structure that it takes.
        threads: For each block.
    """

    arguments: type[ctypes.Structure]
    threads: int


@dataclass(frozen=True, slots=True)
class Interface:
    """What the sources say.

    Attributes:
        signatures: Every kernel, by its name.
        structures: What they take, and what that holds or points to, by its name.
        constants: The whole numbers that have a name, `constexpr` or in an `enum`.
    """

    signatures: Mapping[str, Signature]
    structures: Mapping[str, type[ctypes.Structure]]
    constants: Mapping[str, int]


@cache
def interface() -> Interface:
    """Read the kernels of this installation.

    Raises:
        NotFoundError: It has no sources.
        SourceError: They cannot be read.
    """
    return parse(headers())


def structures() -> Mapping[str, type[ctypes.Structure]]:
    """Give the structures of the kernels, by their names there.

    Pointers are `c_void_p`: assign an address. A field that a structure does not have cannot be
    assigned.

    Raises:
        NotFoundError: This installation has no sources.
        SourceError: They cannot be read.
    """
    return interface().structures


def signatures() -> Mapping[str, Signature]:
    """Give the kernels by their names.

    Raises:
        NotFoundError: This installation has no sources.
        SourceError: They cannot be read.
    """
    return interface().signatures


def constants() -> Mapping[str, int]:
    """Give the whole numbers that have a name in the sources.

    Raises:
        NotFoundError: This installation has no sources.
        SourceError: They cannot be read.
    """
    return interface().constants


def parse(files: Mapping[str, str]) -> Interface:
    """Read sources.

    Args:
        files: The text of each file by its name.

    Raises:
        SourceError: They cannot be read.
    """
    # Comments and directives become spaces, so that every line keeps its number.
    plain = {name: _COMMENT.sub(_blank, text) for name, text in files.items()}
    reader = _Reader(known_numbers(plain.values()), _structs(plain))
    signatures = {}
    for file, text in plain.items():
        for match in _KERNEL.finditer(text):
            where = f"{file}:{_line(text, match.start())}"
            kind, threads = reader.kind(match[2], where), reader.count(match[3], where)
            signatures[match[1]] = Signature(kind, threads)
    return Interface(
        MappingProxyType(signatures),
        MappingProxyType(reader.made),
        MappingProxyType(reader.numbers),
    )


def _blank(match: re.Match[str]) -> str:
    return "".join("\n" if c == "\n" else " " for c in match[0])


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _structs(files: Mapping[str, str]) -> dict[str, _Body]:
    """Find the structures without functions; those of templates are no plain ones."""
    found: dict[str, _Body] = {}
    for file, text in files.items():
        for match in _STRUCT.finditer(text):
            template, name, body = match.groups()
            line = _line(text, match.start(3))
            if name in found:
                raise SourceError(f"{file}:{line}: there is a structure {name} already")
            if not template:
                found[name] = _Body(file, line, body)
    return found


@dataclass(frozen=True, slots=True)
class _Body:
    """What stands between the braces of a structure, and where."""

    file: str
    line: int
    text: str


@dataclass(slots=True)
class _Reader:
    """Makes ctypes structures, those that others hold first.

    Attributes:
        numbers: The constants.
        bodies: The structures that are not made yet, by name.
        made: Those that are.
    """

    numbers: Mapping[str, int]
    bodies: dict[str, _Body]
    made: dict[str, type[ctypes.Structure]] = field(default_factory=dict)

    def kind(self, name: str, where: str) -> Any:
        """Give the ctypes type of a name."""
        if name in self.bodies:
            # It leaves the bodies first, so that none can hold itself.
            fields = list(self._fields(self.bodies.pop(name)))
            # Without slots, a mistyped name would become an attribute beside the fields.
            made = type(name, (ctypes.Structure,), {"__slots__": (), "_fields_": fields})
            self.made[name] = made
        if name in _NUMBERS or name in self.made:
            return _NUMBERS.get(name) or self.made[name]
        raise SourceError(f"{where}: no plain type: {name}")

    def count(self, text: str, where: str) -> int:
        """Give the value of a constant size."""
        value = value_of(text, self.numbers)
        if value is None or value < 1:
            raise SourceError(f"{where}: no constant size: {text.strip()}")
        return value

    def _fields(self, body: _Body) -> Iterator[tuple[str, Any]]:
        line = body.line
        for match in re.finditer(r"(\s*)([^;]*);?", body.text):
            where = f"{body.file}:{line + match[1].count(_NEWLINE)}"
            line += match[0].count(_NEWLINE)
            if match[2]:
                yield from self._declared(match[2].rstrip(), where)

    def _declared(self, text: str, where: str) -> Iterator[tuple[str, Any]]:
        """Read one declaration, such as `const float *mix[6]` or `int rows, cols`."""
        match = _FIELD.fullmatch(text)
        for part in match[2].split(",") if match else [""]:
            name = _NAME.fullmatch(part.strip())
            if match is None or name is None:
                raise SourceError(f"{where}: cannot be read as a plain field: {text}")
            kind: Any = ctypes.c_void_p
            if "*" not in name[1]:
                kind = self.kind(match[1], where)
            elif match[1] in self.bodies:
                self.kind(match[1], where)  # who fills what it points to needs it as well
            for size in reversed(re.findall(r"\[([^\]]*)\]", name[3])):
                kind *= self.count(size, where)
            yield name[2], kind
