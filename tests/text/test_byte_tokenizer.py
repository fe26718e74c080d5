"""Laws of bytes as tokens."""

from __future__ import annotations

import random

from rwkv_cli.text.byte import ByteTokenizer
from rwkv_cli.text.tokenizer import ids_without_bytes


def test_the_id_is_the_byte() -> None:
    assert ByteTokenizer().encode(b'"in\xff') == [34, 105, 110, 255]


def test_decoding_gives_back_any_bytes_but_nul() -> None:
    tokenizer = ByteTokenizer()
    data = random.Random(1).randbytes(2000)
    tokens = tokenizer.encode(data)
    assert b"".join(map(tokenizer.token_bytes, tokens)) == data.replace(b"\0", b"")
    assert 0 not in tokens


def test_stream_equals_encoding_at_once() -> None:
    chunks = [b"a\0b", b"", b"\xe9\x9b", b"\xa8"]
    streamed = ByteTokenizer().encode_stream(chunks)
    assert [token for tokens in streamed for token in tokens] == ByteTokenizer().encode(
        b"".join(chunks)
    )


def test_only_the_end_of_text_has_no_bytes() -> None:
    tokenizer = ByteTokenizer()
    assert ids_without_bytes(tokenizer, 256) == []
    assert tokenizer.token_bytes(0) == tokenizer.token_bytes(256) == b""
