"""What the C++ library is made of: its folder, and the list in `native/sources.txt`."""

from __future__ import annotations

import hashlib
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rwkv_cli.errors import NotFoundError

_FAMILIES = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}
_SUFFIXES = {"darwin": ".dylib", "win32": ".dll"}
FILE_NAME = "librwkv_native" + _SUFFIXES.get(sys.platform, ".so")


@dataclass(frozen=True, slots=True)
class Unit:
    """A file to compile.

    Attributes:
        path: The file, relative to the folder of the sources.
        flags: Its compiler flags, those of every file first.
    """

    path: str
    flags: tuple[str, ...]


def folder() -> Path:
    """Give the folder of the C++ sources: the copy inside the package, or a checkout's `native`.

    Raises:
        NotFoundError: This installation has none.
    """
    here = Path(__file__).resolve()
    candidates = [here.parent / "source", here.parents[2] / "native"]
    for candidate in candidates:
        if (candidate / "sources.txt").is_file():
            return candidate
    raise NotFoundError(
        "the C++ sources are missing from this installation", hint="install rwkv-cli again"
    )


def units(machine: str | None = None) -> list[Unit]:
    """Read which files make the library for a machine, this one unless another is named.

    Raises:
        NotFoundError: This installation has no sources.
    """
    family = _FAMILIES.get((machine or platform.machine()).lower(), "other")
    common: tuple[str, ...] = ()
    found = []
    for line in (folder() / "sources.txt").read_text(encoding="utf-8").splitlines():
        words = line.split("#")[0].split()
        label = words.pop(0)[:-1] if words and words[0].endswith(":") else family
        if label == "flags":
            common = tuple(words)
        elif words and label == family:
            found.append(Unit(words[0], (*common, *words[1:])))
    return found


@cache
def digest() -> str:
    """Name what a library built now would be: a hash over the sources, their flags and the machine.

    Raises:
        NotFoundError: This installation has no sources.
    """
    root = folder()
    files = [
        root / "sources.txt",
        root / "exports.map",
        *sorted(root.glob("include/*")),
        *sorted(root.glob("src/*")),
    ]
    total = hashlib.sha256(f"{sys.platform} {platform.machine()}\0".encode())
    for file in files:
        content = file.read_bytes()
        total.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]
