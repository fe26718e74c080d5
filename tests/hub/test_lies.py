"""Every lie of a server has its own sentence and exit code, and nothing gets the model's name."""

from __future__ import annotations

import json
import time
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path

import pytest
from hub.conftest import FILE, REPO, Bench, content
from hub.liar import EXPIRED, Handler, Liar, serving

from rwkv_cli.errors import RwkvError
from rwkv_cli.hub import part, transfer, web

Lie = Callable[[Handler, bytes], bool]


def answering(status: int, body: bytes = b"", **headers: str) -> Lie:
    def lie(handler: Handler, data: bytes) -> bool:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        handler.reply(status, body, named)
        return True

    return lie


def hanging_up(handler: Handler, data: bytes) -> bool:
    handler.hang_up()
    return True


def from_cdn(lie: Lie) -> Lie:
    """Lie only where the bytes come from."""
    return lambda handler, data: handler.name == "cdn" and lie(handler, data)


def after_the_probe(lie: Lie) -> Lie:
    """Lie only when the ranges are asked for."""

    def later(handler: Handler, data: bytes) -> bool:
        return handler.headers.get("Range") != "bytes=0-1023" and lie(handler, data)

    return from_cdn(later)


def flipped(handler: Handler, data: bytes) -> bool:
    handler.send_part(data[:500_000] + bytes([data[500_000] ^ 1]) + data[500_001:])
    return True


def cut_short(handler: Handler, data: bytes) -> bool:
    handler.send_part(data[:-10])
    return True


def other_bytes(handler: Handler, data: bytes) -> bool:
    handler.send_part(data, **{"Content-Range": f"bytes 5-9/{len(data)}"})
    return True


def changing(handler: Handler, data: bytes) -> bool:
    handler.send_part(data, ETag=f'"{time.monotonic_ns()}"')
    return True


def without_numbers(handler: Handler, data: bytes) -> bool:
    handler.send_part(data, **{"Content-Range": "bytes 0-1023/*"})
    return True


def gzipped(handler: Handler, data: bytes) -> bool:
    handler.send_part(data, **{"Content-Encoding": "gzip"})
    return True


def no_http(handler: Handler, data: bytes) -> bool:
    handler.wfile.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
    handler.close_connection = True
    return True


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
PAGE = b"<!DOCTYPE html><html><body>Log in to the hotel</body></html>"
LIES: dict[str, tuple[Lie, int, str]] = {
    "page": (answering(200, PAGE, Content_Type="text/html"), 6, "a web page"),
    "page as weights": (answering(200, PAGE), 6, "a web page"),
    "pointer": (answering(200, POINTER), 6, "Git LFS pointer"),
    "cut short": (from_cdn(cut_short), 6, "cut short"),
    "flipped": (from_cdn(flipped), 6, "wrong checksum"),
    "whole for a part": (after_the_probe(answering(200, b"x" * 99)), 6, "changed"),
    "other bytes": (after_the_probe(other_bytes), 6, "other bytes"),
    "no numbers": (from_cdn(without_numbers), 6, "does not say which bytes"),
    "gzip": (from_cdn(gzipped), 6, "compressed (gzip)"),
    "to http": (answering(302, Location="http://example.com/x"), 6, "without encryption"),
    "to a file": (answering(302, Location="file:///etc/passwd"), 6, "no web address"),
    "to a password": (answering(302, Location="https://a:b@example.com/"), 6, "password"),
    "to nowhere": (answering(302, Location="https://[oops/"), 6, "nowhere"),
    "in a circle": (answering(302, Location="?again"), 6, "on and on"),
    "to nothing": (answering(302), 5, "without saying where"),
    "to a text": (answering(302, Location="data:," + "x" * 9000), 6, "us to data:,xxx"),
    "to a long name": (answering(302, Location=f"http://{'a.' * 999}com/"), 6, "(http)"),
    "long encoding": (answering(200, b"", Content_Encoding="z" * 9000), 6, "compressed (zzz"),
    "401": (answering(401), 5, "401"),
    "403": (answering(403), 5, "403"),
    "404": (answering(404), 5, "404"),
    "410": (answering(410), 5, "410"),
    "416": (answering(416), 5, "416"),
    "418": (answering(418), 5, "418"),
    "429": (answering(429, Retry_After="3600"), 5, "429"),
    "500": (answering(500), 5, "500"),
    "503": (answering(503, Retry_After="0"), 5, "503"),
    "403 for good": (from_cdn(answering(403)), 5, "403"),
    "hangs up": (hanging_up, 5, "broke"),
    "no HTTP": (no_http, 5, "broke"),
    "never the bytes": (after_the_probe(hanging_up), 5, "no byte came"),
}


def refused(bench: Bench, asked: str = f"{REPO}:{FILE}", **changes: object) -> RwkvError:
    """Fetch what cannot be had: the error, when nothing came of it."""
    with pytest.raises(RwkvError) as caught:
        bench.fetch(asked, **changes)
    assert not bench.place.exists()
    assert not [name for name in bench.litter() if not name.endswith((".part", ".journal"))]
    return caught.value


@pytest.mark.parametrize("name", LIES)
def test_every_lie_has_its_sentence_and_nothing_gets_the_name(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie, code, sentence = LIES[name]
    bench.liar.lie = lie
    error = refused(bench, manner=transfer_manner())
    assert sentence in error.message
    assert error.exit_code == code
    assert "\n" not in error.message
    assert len(error.message) < 300


def transfer_manner() -> object:
    from rwkv_cli.hub.onefile import Manner

    return Manner(2, 0.4)


def test_a_file_that_nobody_vouches_for_must_stay_the_same_while_it_comes(bench: Bench) -> None:
    bench.liar.lie = changing
    error = refused(bench, f"{bench.liar.cdn}/{REPO}/cdn/x/{FILE}")
    assert error.exit_code == 6
    assert "while it came" in error.message
    assert not list(bench.models.rglob("*.part"))


def test_hosts_that_disagree_on_the_mark_of_a_proven_file_do_not_matter(bench: Bench) -> None:
    bench.liar.lie = from_cdn(changing)
    bench.fetch()
    assert bench.place.read_bytes() == bench.content


def test_no_two_lies_have_the_same_sentence_but_for_connections_that_break() -> None:
    sentences = [sentence for _, _, sentence in LIES.values()]
    shared = {sentence for sentence in sentences if sentences.count(sentence) > 1}
    assert shared <= {"a web page", "changed", "403", "broke"}


def test_an_endless_body_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(handler: Handler, data: bytes) -> bool:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        while True:
            handler.wfile.write(b"x" * 65536)

    monkeypatch.setattr(transfer, "_MOST_UNSIZED", 3_000_000)
    bench.liar.lie = endless
    assert "more than the 1,000,003 bytes" in refused(bench).message
    url = f"{bench.liar.cdn}/{REPO}/cdn/x/{FILE}"
    assert "without end" in refused(bench, url).message


def test_a_body_without_end_leaves_room_for_everything_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = chain([10 << 30, 10 << 30], repeat(100 << 20))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(next(free)))
    monkeypatch.setattr(transfer, "_ROOM", 100_000)

    def unsized(handler: Handler, data: bytes) -> bool:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):
            while True:
                handler.wfile.write(b"x" * 65536)
        return True

    bench.liar.lie = unsized
    monkeypatch.setattr(part, "_SPARE", 100 << 20)
    error = refused(bench, f"{bench.liar.cdn}/{REPO}/cdn/x/{FILE}")
    assert (error.exit_code, "105 MB are free" in error.message) == (5, True)


@pytest.mark.parametrize("facts", [{"Content-Range": "bytes 0-0/0"}, {}])
def test_an_empty_file_is_no_model(bench: Bench, facts: dict[str, str]) -> None:
    bench.liar.lie = answering(206 if facts else 200, b"", **facts)
    error = refused(bench, f"{bench.liar.cdn}/{REPO}/cdn/x/{FILE}")
    assert (error.exit_code, "is empty" in error.message) == (6, True)


@pytest.mark.parametrize(
    "path",
    ["../evil.pth", "a/../../evil.pth", "..\\evil.pth", ".hidden.pth", "C:evil.pth", "nul.pth",
     "a\x1b[31m.pth", "x" * 300 + ".pth", "\ud800.pth",
     "a\u202egpj.pth", "a\u200b.pth", "a\x85.pth", "a\u2028b.pth", "-rf.pth"],
)  # fmt: skip
def test_names_that_leave_the_folder_are_refused(bench: Bench, path: str) -> None:
    bench.liar.files["evil/repo"] = {path: b"x"}
    error = refused(bench, "evil/repo")
    assert error.exit_code == 6
    assert "folder" in error.message or "name of a file" in error.message


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (PAGE, "a web page instead of JSON"),
        (b"{", "something else instead of JSON"),
        (b"[" * 100_000, "something else instead of JSON"),
        (b"[]", "does not say what"),
        (b'{"siblings": 7}', "does not say what"),
        (b'{"siblings": [null, {"rfilename": 3}, {"rfilename": "README.md"}]}', "has no file"),
    ],
)
def test_an_api_that_talks_nonsense_is_met(
    bench: Bench, answer: bytes, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "_api", lambda self, repo: self.reply(200, answer))
    assert sentence in refused(bench).message


def test_an_api_that_says_too_much_is_cut_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_LARGEST_JSON", 1000)
    monkeypatch.setattr(Handler, "_api", lambda self, repo: self.reply(200, b" " * 2000))
    assert "far too much" in refused(bench).message


def test_a_file_that_is_not_the_one_the_catalogue_knows_is_refused_at_once(bench: Bench) -> None:
    name = "rwkv7-g1k-1.5b-20260930-ctx25600.pth"
    bench.liar.add("BlinkDL/rwkv7-g1", name, content(1000))
    error = refused(bench, "1.5b")
    assert (error.exit_code, "another" in error.message) == (6, True)
    assert not [seen for seen in bench.liar.seen if "/resolve/" in seen.path]


def test_the_api_and_the_server_must_agree_on_the_size(bench: Bench) -> None:
    bench.liar.listed[FILE] = {"lfs": {"sha256": "0" * 64, "size": 5}}
    assert "offers 1,000,003 bytes" in refused(bench).message


@pytest.mark.parametrize("certificate", [EXPIRED, None])
def test_who_cannot_prove_who_they_are_gets_no_request(
    bench: Bench, certificate: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if certificate is None:  # a sound certificate, of an authority that nobody here trusts
        monkeypatch.delenv("SSL_CERT_FILE")
        assert "cannot prove who it is" in refused(bench).message
        assert bench.liar.seen == []
        return
    expired = Liar()
    monkeypatch.setenv("SSL_CERT_FILE", str(EXPIRED))
    with serving(expired, "hub", certificate) as hub:
        error = refused(bench, endpoint=hub)
    assert "cannot prove who it is: certificate has expired" in error.message
    assert (error.exit_code, expired.seen) == (5, [])


def test_a_host_without_a_name_and_one_that_refuses_are_told_apart(bench: Bench) -> None:
    assert "cannot find" in refused(bench, endpoint="https://no-such-host.invalid").message
    assert "refuses the connection" in refused(bench, endpoint="https://127.0.0.1:9").message


def test_the_sentences_survive_json(bench: Bench) -> None:
    bench.liar.lie = answering(404)
    assert json.loads(json.dumps(refused(bench).message))
