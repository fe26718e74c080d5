"""From words, files and stdin to the text a model reads: what it is, and how it is read piece by
piece.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.errors import NotFoundError, RefusedError, StorageError
from rwkv_cli.files import reason
from rwkv_cli.render.streams import STDIN, read_blocks, read_stdin, stdin_is_piped
from rwkv_cli.text.templates import ChatTemplate

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the user gave.

    Attributes:
        words: The words on the command line, joined; None when there are none.
        files: The files named with -f, in order; "-" is stdin.
        piped: Whether stdin is part of it.
    """

    words: str | None
    files: tuple[str, ...]
    piped: bool

    @property
    def has_document(self) -> bool:
        """Whether there is more than words."""
        return bool(self.files) or self.piped

    def document(self) -> Iterator[bytes]:
        """Give the files, then stdin, in blocks: bytes as they are, but for a leading byte order
        mark.

        Raises:
            NotFoundError: A file does not exist.
            StorageError: One cannot be read.
        """
        for name in self.files:
            yield from _without_bom(read_stdin() if name == "-" else _read_file(Path(name)))
        if self.piped:
            yield from _without_bom(read_stdin())

    def size(self) -> int | None:
        """Give the bytes of the document, as far as they can be known before reading."""
        if self.piped or "-" in self.files:
            return None
        sizes = [Path(name).stat().st_size for name in self.files if Path(name).is_file()]
        return sum(sizes) if len(sizes) == len(self.files) else None


def gather(words: Sequence[str], files: Sequence[str]) -> Prompt:
    """Put together what was given; nothing is read yet, but missing files are reported.

    Raises:
        NotFoundError: A file does not exist.
        RefusedError: It is a folder.
    """
    for name in files:
        if name != "-" and not Path(name).exists():
            raise NotFoundError(f"no such file: {name}")
        if name != "-" and Path(name).is_dir():
            raise RefusedError(f"{name} is a folder")
    piped = stdin_is_piped() and "-" not in files and not _is_null()
    return Prompt(" ".join(words) if words else None, tuple(files), piped)


def raw_text(prompt: Prompt) -> Iterator[bytes]:
    """Give exactly the text that is to be continued: the document, then the words."""
    yield from prompt.document()
    if prompt.words is not None:
        yield prompt.words.encode("utf-8", "surrogateescape")


def chat_text(
    prompt: Prompt, template: ChatTemplate, system: str, think: str | None
) -> Iterator[bytes]:
    """Give one chat turn: the document first, the instruction last, in the format
    of the template.
    """
    mark = "\ue000rwkv\ue000"  # stands for the message while the template is cut around it
    head, tail = template.turn(mark, think).split(mark)
    yield (template.opening() + template.system(system) + head).encode()
    yield from template.clean_stream(_message(prompt))
    yield tail.encode()


def _message(prompt: Prompt) -> Iterator[bytes]:
    yield from prompt.document()
    if prompt.words is not None:
        if prompt.has_document:
            yield b"\n"
        yield prompt.words.encode("utf-8", "surrogateescape")


def _without_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    first = True
    for block in blocks:
        yield block.removeprefix(_BOM) if first else block
        first = False


def _read_file(path: Path) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise NotFoundError(f"no such file: {path}") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason(error)}") from error
    try:
        yield from read_blocks(descriptor)
    finally:
        os.close(descriptor)


def _is_null() -> bool:
    """Whether stdin is /dev/null, as under cron and in editors: then nobody piped anything."""
    try:
        return os.path.samestat(os.fstat(STDIN), os.stat(os.devnull))  # noqa: PTH116
    except OSError:
        return False
