"""From what people call a model to its file: a path, `demo`, or the name of an installed model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from rwkv_cli.engine.modelfile import DEMO
from rwkv_cli.errors import NotFoundError
from rwkv_cli.places import expanded

SUFFIXES = (".pth", ".safetensors", ".bin", ".st")


def installed(folder: Path) -> dict[str, Path]:
    """List the weights files of a folder, by name without suffix."""
    if not folder.is_dir():
        return {}
    files = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    return {p.stem: p for p in files}


def resolve(name: str, folder: Path) -> Path:
    """Find the file of a model.

    Args:
        name: A path, "demo", or an installed model's name or a part of it that only one has. Case,
            and the difference between "1b5" and "1.5b", do not matter.
        folder: Where models are installed.

    Raises:
        NotFoundError: Nothing has that name, or several have.
    """
    if name == "demo":
        return DEMO
    path = expanded(name)
    if path.exists() or path.suffix in SUFFIXES or len(path.parts) > 1:
        if not path.exists():
            raise NotFoundError(f"no such file: {path}")
        return path
    files = installed(folder)
    for fits in (_equals, _contains):
        found = [p for stem, p in files.items() if fits(_plain(name), _plain(stem))]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(p.stem for p in found)
            raise NotFoundError(f"{name!r} could be any of {names}", hint="give more of the name")
    raise NotFoundError(f"no model called {name!r}", hint=_suggestion(name, files, folder))


def default_model(folder: Path) -> Path:
    """Choose a model when none was named: the one installed model, or the newest, or the demo."""
    files = installed(folder).values()
    return max(files, key=lambda p: p.stat().st_mtime, default=DEMO)


def _plain(name: str) -> str:
    """Reduce a name to what people mean by it: 1b5 and 1.5B are the same."""
    text = name.lower().replace("_", "-")
    for short, size in (("1b5", "1.5b"), ("1b6", "1.6b"), ("2b9", "2.9b"), ("7b2", "7.2b")):
        text = text.replace(short, size)
    return text


def _equals(name: str, stem: str) -> bool:
    return name == stem


def _contains(name: str, stem: str) -> bool:
    return name in stem


def _suggestion(name: str, names: Iterable[str], folder: Path) -> str:
    """Say what there is instead."""
    known = [*names, "demo"]
    close = difflib.get_close_matches(_plain(name), known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    where = f"put .pth or .safetensors files into {folder}, or name one with its path"
    return f"installed: {', '.join(known)}; {where}"
