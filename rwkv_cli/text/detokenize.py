"""Bytes of tokens to text as they come; knows no tokenizer."""

from __future__ import annotations

import codecs
import re

_SURROGATE = re.compile(rb"\xed[\xa0-\xbf]")


class StreamDecoder:
    """Turns bytes into complete characters.

    A sequence that is still incomplete is held back only while it can become valid. Bytes that
    cannot are U+FFFD at once. Whatever the splits, all results joined are `bytes.decode("utf-8",
    "replace")` of all bytes joined.
    """

    def __init__(self) -> None:
        """Begin with nothing held."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> bytes:
        """The bytes of an incomplete character, at most three."""
        return self._decoder.getstate()[0]

    def feed(self, data: bytes) -> str:
        """Characters that are complete with these bytes."""
        text = self._decoder.decode(data)
        # The codec waits for the third byte of a surrogate, which is no character either way.
        return text + self.flush() if _SURROGATE.match(self.pending) else text

    def flush(self) -> str:
        """What is held, as U+FFFD; begin anew."""
        text = self._decoder.decode(b"", True)
        self._decoder.reset()
        return text
