"""What a download gets over by itself."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hub.conftest import FILE, REPO, Bench, content
from hub.liar import Handler

from rwkv_cli.hub import transfer, web


def test_connections_that_break_at_every_turn_only_cost_time(bench: Bench) -> None:
    lock, count = threading.Lock(), [0]

    def breaking(handler: Handler, data: bytes) -> bool:
        if handler.name == "hub":
            return False
        with lock:
            count[0] += 1
            turn = count[0]
        if turn == 1:
            return False
        begin, _, end = handler.headers["Range"].removeprefix("bytes=").partition("-")
        length = int(end) + 1 - int(begin)
        body = data[int(begin) : int(end) + 1]
        sent = body if turn % 3 == 0 else body[: length // 2]
        handler.send_response(206)
        handler.send_header("Content-Length", str(length))
        handler.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(sent)
        if len(sent) < length:
            handler.hang_up()
        return True

    bench.liar.lie = breaking
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
    assert bench.log.done == sorted(bench.log.done)


def test_a_server_that_is_busy_is_asked_again(bench: Bench) -> None:
    turns = iter([503, 429, 500, 0])

    def busy(handler: Handler, data: bytes) -> bool:
        status = next(turns, 0)
        if status:
            handler.reply(status, b"", {"Retry-After": "0"})
        return bool(status)

    bench.liar.lie = busy
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
    assert any("trying again" in text for text in bench.log.said)


def test_an_address_that_has_expired_is_asked_for_anew(bench: Bench) -> None:
    """Signed addresses are valid for a while: each here for three requests."""
    tickets: dict[str, int] = {}
    lock = threading.Lock()

    def signed(handler: Handler, data: bytes) -> bool:
        with lock:
            if handler.name == "hub":
                ticket = str(len(tickets))
                tickets[ticket] = 3
                target = handler.path.replace("/resolve/", "/cdn/")
                location = f"{handler.liar.cdn}{target}?ticket={ticket}"
                handler.reply(302, b"", {"Location": location})
                return True
            ticket = handler.path.partition("ticket=")[2]
            tickets[ticket] -= 1
            if tickets[ticket] < 0:
                handler.reply(403)
                return True
        return False

    bench.liar.lie = signed
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
    assert len(tickets) > 1


def test_a_silent_range_is_asked_for_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "STALL", 0.3)
    silent = [True]
    waiting = threading.Event()

    def stalling(handler: Handler, data: bytes) -> bool:
        if handler.name == "cdn" and silent[0] and handler.headers["Range"] != "bytes=0-1023":
            silent[0] = False
            waiting.wait(5)
            return False
        return False

    bench.liar.lie = stalling
    began = time.monotonic()
    bench.fetch()
    waiting.set()
    assert bench.place.read_bytes() == bench.content
    assert time.monotonic() - began < 4
    resolved = [s for s in bench.liar.seen if s.host == "hub" and "/resolve/" in s.path]
    assert len(resolved) > 1


def test_a_range_that_drips_is_asked_for_elsewhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STALL", 0.3)
    monkeypatch.setattr(transfer, "_FIRST_READ", 1)
    monkeypatch.setattr(transfer, "_LONGEST_READ", 1 << 16)
    dripping = [True]

    def drips(handler: Handler, data: bytes) -> bool:
        if handler.name == "hub" or not dripping[0] or handler.headers["Range"] == "bytes=0-1023":
            return False
        dripping[0] = False
        begin, _, end = handler.headers["Range"].removeprefix("bytes=").partition("-")
        handler.send_response(206)
        handler.send_header("Content-Length", str(int(end) + 1 - int(begin)))
        handler.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
        handler.end_headers()
        for at in range(int(begin), int(begin) + 40):
            handler.wfile.write(data[at : at + 1])
            time.sleep(0.1)
        handler.hang_up()
        return True

    bench.liar.lie = drips
    began = time.monotonic()
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
    assert time.monotonic() - began < 3


def test_a_rangeless_server_that_breaks_is_begun_again_and_that_is_said(bench: Bench) -> None:
    bench.liar.ranges = False
    turns = [0]

    def breaking(handler: Handler, data: bytes) -> bool:
        if handler.name == "hub":
            return False
        turns[0] += 1
        if turns[0] != 2:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:500_000])
        handler.hang_up()
        return True

    bench.liar.lie = breaking
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
    assert any("from the start" in text for text in bench.log.said)


def test_a_file_that_changes_once_while_it_comes_is_begun_anew(bench: Bench) -> None:
    new, state = content(1_000_003, 9), ["old"]

    def changes(handler: Handler, data: bytes) -> bool:
        if handler.name == "cdn" and handler.headers["Range"] != "bytes=0-1023":
            state[0] = "new"
        handler.send_part(data if state[0] == "old" else new)
        return True

    url = f"{bench.liar.cdn}/{REPO}/cdn/x/{FILE}"
    bench.liar.lie = changes
    bench.fetch(url)
    assert bench.place.read_bytes() == new
    assert any("starting anew" in text for text in bench.log.said)


def parts(bench: Bench) -> list[Path]:
    return sorted(bench.models.rglob("*.part"))


def interrupted(bench: Bench, asked: str) -> None:
    """Leave half of a file: its server goes away in the middle."""

    def half(handler: Handler, data: bytes) -> bool:
        begin = handler.headers["Range"].removeprefix("bytes=").partition("-")[0]
        if handler.name == "cdn" and int(begin) > 500_000:
            handler.reply(404)
            return True
        return False

    bench.liar.lie = half
    with pytest.raises(Exception, match="404"):
        bench.fetch(asked)
    bench.liar.lie = None
    assert parts(bench)


def test_a_part_is_continued_and_not_fetched_twice(bench: Bench) -> None:
    interrupted(bench, f"{REPO}:{FILE}")
    bench.liar.served = 0
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
    assert bench.liar.served < 0.8 * len(bench.content)
    assert any("going on" not in text for text in bench.log.said)
    assert bench.log.begun[-1][2] > 0


@pytest.mark.parametrize("of", ["hub", "url"])
def test_a_file_that_changed_since_is_named_and_begun_anew(bench: Bench, of: str) -> None:
    asked = f"{REPO}:{FILE}" if of == "hub" else f"{bench.liar.cdn}/{REPO}/cdn/x/{FILE}"
    interrupted(bench, asked)
    new = bench.liar.add(REPO, FILE, content(1_000_003, 5))
    bench.fetch(asked)
    assert bench.place.read_bytes() == new
    assert any("has changed since" in text for text in bench.log.said)
    assert bench.log.begun[-1][2] == 0
    assert not parts(bench)


def test_a_journal_that_lies_is_found_out_and_the_next_try_works(bench: Bench) -> None:
    """A part whose bytes are not what its journal says, as a disk that lied leaves it."""
    interrupted(bench, f"{REPO}:{FILE}")
    (part,) = parts(bench)
    with part.open("r+b") as file:
        file.write(b"\0" * 1000)
    with pytest.raises(Exception, match="wrong checksum"):
        bench.fetch()
    assert not bench.place.exists()
    assert not parts(bench)
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
