"""From words, files and stdin to the text a model reads: what it is, and how it is read piece by
piece.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.errors import NotFoundError, RefusedError, StorageError
from rwkv_cli.files import reason
from rwkv_cli.render.streams import STDIN, read_blocks, read_stdin, stdin_is_piped
from rwkv_cli.text.templates import ChatTemplate

Ended = Callable[[], None]

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the user gave.

    Attributes:
        words: The words on the command line, joined; None when there are none.
        files: The files named with -f, in order; "-" is stdin.
        piped: The first block of stdin, when that is part of it; empty when it is not.
        source: Where the rest of stdin comes from: its descriptor, or a copy of it where the
            keyboard has taken its place.
    """

    words: str | None = None
    files: tuple[str, ...] = ()
    piped: bytes = b""
    source: int = STDIN

    @property
    def has_document(self) -> bool:
        """Whether there is more than words."""
        return bool(self.files or self.piped)

    def document(self, ended: Ended = lambda: None) -> Iterator[bytes]:
        """Give the files, then stdin, in blocks: bytes as they are, but for a leading byte order
        mark.

        Args:
            ended: Called after each of them.

        Raises:
            NotFoundError: A file does not exist.
            StorageError: One cannot be read.
        """
        for name in self.files:
            blocks = read_blocks(self.source) if name == "-" else _read_file(Path(name))
            yield from _without_bom(blocks)
            ended()
        if self.piped:
            yield from _without_bom(itertools.chain([self.piped], read_blocks(self.source)))
            ended()

    def size(self) -> int | None:
        """Give the bytes of the whole, as far as they can be known before reading."""
        size = len((self.words or "").encode("utf-8", "surrogateescape"))
        for name in (*self.files, *(["-"] if self.piped else [])):
            status = os.fstat(self.source) if name == "-" else Path(name).stat()
            if not stat.S_ISREG(status.st_mode):
                return None
            size += status.st_size
        return size


def gather(words: Sequence[str], files: Sequence[str], *, stdin: bool = True) -> Prompt:
    """Put together what was given. Missing files are reported, and of stdin the first block is
    read: when there is none, nobody piped anything, as under cron and in editors.

    Args:
        words: The words on the command line.
        files: Those to be read; "-" is stdin.
        stdin: Whether stdin may be read at all.

    Raises:
        NotFoundError: A file does not exist.
        RefusedError: It is a folder.
        StorageError: stdin cannot be read.
    """
    for name in files:
        if name != "-" and not Path(name).exists():
            raise NotFoundError(f"no such file: {name}")
        if name != "-" and Path(name).is_dir():
            raise RefusedError(f"{name} is a folder")
    wanted = stdin and "-" not in files and stdin_is_piped()
    piped = next(read_stdin(), b"") if wanted else b""
    return Prompt(" ".join(words) if words else None, tuple(files), piped)


def raw_text(prompt: Prompt, ended: Ended = lambda: None) -> Iterator[bytes]:
    """Give exactly the text that is to be continued: the document, then the words."""
    yield from prompt.document(ended)
    if prompt.words is not None:
        yield prompt.words.encode("utf-8", "surrogateescape")


def chat_text(
    prompt: Prompt,
    template: ChatTemplate,
    start: str,
    think: str | None,
    ended: Ended = lambda: None,
) -> Iterator[bytes]:
    """Give one chat turn in the format of the template: the document first, the instruction last.

    Args:
        prompt: What the user gave.
        template: The format.
        start: What stands before the turn.
        think: Mode of thinking; None is the template's default.
        ended: Called after each part of the document.
    """
    mark = "\ue000rwkv\ue000"  # stands for the message while the template is cut around it
    head, tail = template.turn(mark, think).split(mark)
    yield (start + head).encode("utf-8", "surrogateescape")
    yield from template.clean_stream(_message(prompt, ended))
    yield tail.encode()


def _message(prompt: Prompt, ended: Ended) -> Iterator[bytes]:
    yield from prompt.document(ended)
    if prompt.words is not None:
        if prompt.has_document:
            yield b"\n"
        yield prompt.words.encode("utf-8", "surrogateescape")


def _without_bom(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Drop a byte order mark from the beginning, however the text comes in pieces."""
    blocks, start = iter(blocks), b""
    while len(start) < len(_BOM) and (block := next(blocks, None)) is not None:
        start += block
    yield start.removeprefix(_BOM)
    yield from blocks


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
