r"""Makes a message safe to put into a prompt; knows no roles.

A blank line ends a turn for every RWKV chat model, so a message has none: line ends become "\n",
several become one, and white space around the message goes (BlinkDL, RWKV7-G1x-templates.txt,
clean_txt; there "\r\r\n" stays).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

_LINE_ENDS = re.compile(r"(?:\r*\n)+")


def clean_text(text: str) -> str:
    """The message without blank lines, CRLF and surrounding white space."""
    return _LINE_ENDS.sub("\n", text.strip())


def clean_stream(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What `clean_text` makes of the chunks joined; bytes that are not UTF-8 pass unchanged.

    Held back are an incomplete character and the white space last seen: it may prove to be the end.
    """
    started, held = False, [""]
    for text in _decoded(chunks):
        if not text.strip():
            held += [text] if started else []
            continue
        text = "".join(held) + text
        body = text.rstrip()
        held = [text[len(body) :]]
        # Cut between a letter and white space: no run of line ends lies across.
        cleaned = _LINE_ENDS.sub("\n", body if started else body.lstrip())
        started = True
        yield cleaned.encode("utf-8", "surrogateescape")


def _decoded(chunks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in chunks:
        yield decoder.decode(chunk)
    yield decoder.decode(b"", True)
