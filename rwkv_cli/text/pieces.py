r"""Cuts bytes where every GPT-2 style tokenizer begins a new word; knows no tokenizer.

The place is right before ASCII white space that follows anything but white space. The expression of
these tokenizers, `'s|'t|... | ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, has no
alternative that matches both sides and none that looks back. Nor does normalization (NFC) reach
across: white space composes with nothing before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PIECE = 64 << 10
LONGEST_PIECE = 1 << 20

# Before the white space: printable ASCII, or the last byte of any other character that is no white
# space in Unicode.
_CUT = re.compile(
    rb"(?<=[!-~\x80-\xff])(?<!\xc2[\x85\xa0])(?<!\xe1\x9a\x80)(?<!\xe1\xa0\x8e)"
    rb"(?<!\xe2\x80[\x80-\x8a\xa8\xa9\xaf])(?<!\xe2\x81\x9f)(?<!\xe3\x80\x80)[ \t\r\n]"
)


def cut_into_pieces(
    chunks: Iterable[bytes], *, piece: int = PIECE, longest: int = LONGEST_PIECE
) -> Iterator[bytes]:
    """Give the bytes in pieces; where they are cut depends on the bytes alone, not on the chunks.

    Args:
        chunks: Bytes in any portions.
        piece: Bytes a piece has at least, the last one excepted.
        longest: Bytes a piece has at most. Where so many hold no good place, the cut falls between
            any two characters.
    """
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while cut := _find_cut(held, piece, longest):
            yield bytes(held[:cut])
            del held[:cut]
    if held:
        yield bytes(held)


def _find_cut(held: bytearray, piece: int, longest: int) -> int:
    """Where the first piece ends; 0 while that is not known."""
    match = _CUT.search(held, piece, longest + 1)
    if match is not None:
        return match.start()
    if len(held) <= longest:
        return 0
    cut = longest
    while cut > longest - 3 and held[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut
