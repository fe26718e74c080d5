"""A server that always sends one more byte, and never what was asked for, holds nobody for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from hub.conftest import FILE, REPO, Bench
from hub.liar import Handler

from rwkv_cli.errors import RwkvError
from rwkv_cli.hub import web
from rwkv_cli.hub.onefile import Manner


def continuing() -> Iterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


def one_header() -> Iterator[bytes]:
    yield b"HTTP/1.1 206 Partial Content\r\nX-Long: "
    while True:
        yield b"x"


def blank_lines() -> Iterator[bytes]:
    while True:
        yield b"\n"


def trailers() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    while True:
        yield b"X-More: x\r\n"


def chunk_size() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"0"


ENDLESS = [continuing, one_header, blank_lines, trailers, chunk_size]


def sending(parts: Callable[[], Iterator[bytes]]) -> Callable[[Handler, bytes], bool]:
    def lie(handler: Handler, data: bytes) -> bool:
        handler.close_connection = True
        for part in parts():
            handler.wfile.write(part)
            time.sleep(0.01)
        return True

    return lie


@pytest.mark.parametrize("parts", ENDLESS)
@pytest.mark.parametrize("from_the_first", [True, False])
def test_an_answer_without_end_is_given_up(
    bench: Bench,
    parts: Callable[[], Iterator[bytes]],
    from_the_first: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "STALL", 0.2)
    monkeypatch.setattr(web, "SHORT", 0.2)
    lie = sending(parts)

    def later(handler: Handler, data: bytes) -> bool:
        probing = handler.headers.get("Range") == "bytes=0-1023"
        return (from_the_first or not probing) and lie(handler, data)

    bench.liar.lie = later
    started = time.monotonic()
    with pytest.raises(RwkvError):
        bench.fetch(f"{REPO}:{FILE}", manner=Manner(2, 0.5))
    assert time.monotonic() - started < 5
    assert not bench.place.exists()
