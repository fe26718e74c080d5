"""Who learns the user's key, where a redirect may lead, and how proxies are used."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.conftest import FILE, REPO, Bench

from rwkv_cli.errors import RefusedError, RwkvError, StorageError
from rwkv_cli.hub import address
from rwkv_cli.hub.web import Web
from rwkv_cli.places import hub_token, proxy_for

SECRET = "hf_secret"


def hosts_told(bench: Bench) -> set[str]:
    """Which of the hosts saw the key."""
    return {seen.host for seen in bench.liar.seen if SECRET in str(seen.headers)}


def test_the_key_goes_to_the_official_hub_and_not_where_it_sends_us(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "OFFICIAL_HUB", bench.liar.hub)
    bench.fetch(token=SECRET)
    assert hosts_told(bench) == {"hub"}
    assert any(seen.host == "cdn" for seen in bench.liar.seen)
    api = next(seen for seen in bench.liar.seen if "/api/" in seen.path)
    assert api.headers["authorization"] == f"Bearer {SECRET}"


def test_no_mirror_learns_the_key(bench: Bench) -> None:
    bench.fetch(token=SECRET)
    assert hosts_told(bench) == set()


@pytest.mark.parametrize(
    "url",
    ["http://huggingface.co/x", "https://huggingface.co.evil.com/", "https://huggingface.co:444/",
     "https://evil@huggingface.co/", "https://cdn-lfs.huggingface.co/"],
)  # fmt: skip
def test_what_only_looks_like_the_hub_is_not_the_hub(url: str) -> None:
    assert not address.may_see_token(url)


def test_the_key_is_found_where_the_hubs_tools_keep_it(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, bench: Bench
) -> None:
    assert hub_token() is None
    home = bench.cache.parent
    home.mkdir()
    (home / "token").write_text(f"{SECRET}\n")
    assert hub_token() == SECRET
    (home / "other").write_text("hf_other")
    monkeypatch.setenv("HF_TOKEN_PATH", str(home / "other"))
    assert hub_token() == "hf_other"
    monkeypatch.setenv("HF_TOKEN", "hf_first")
    assert hub_token() == "hf_first"


@pytest.mark.parametrize(
    "target",
    ["https://127.0.0.1/x", "https://[::1]/x", "https://169.254.169.254/latest", "https://10.0.0.1/",
     "https://localhost/", "https://printer.local/", "https://[fe80::1]/", "https://0.0.0.0/"],
)  # fmt: skip
def test_the_internet_cannot_send_us_into_our_own_network(target: str) -> None:
    with pytest.raises(RefusedError, match="in your own network"):
        address.redirected("https://1.1.1.1/a", "https://1.1.1.1/a", target, by_proxy=False)


def test_a_mirror_of_our_own_network_may_send_us_within_it() -> None:
    target = address.redirected(
        "http://10.0.0.2/a", "http://10.0.0.2/a", "http://10.0.0.3/b", by_proxy=False
    )
    assert target == "http://10.0.0.3/b"


def test_a_relative_redirect_stays_with_its_host() -> None:
    found = address.redirected("https://1.1.1.1/a/b", "https://1.1.1.1/a/b", "../c", by_proxy=False)
    assert found == "https://1.1.1.1/c"


class _Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that opens tunnels."""

    asked: list[tuple[str, str | None]]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self._copy, args=(there, self.connection), daemon=True)
            back.start()
            self._copy(self.connection, there)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(1 << 16):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str | None]]]:
    """A proxy that everything goes through; what it was asked for."""
    handler = type("Handler", (_Proxy,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://me:p%40ss@127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HTTPS_PROXY", address)
    yield handler.asked  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_a_proxy_is_used_with_its_login(bench: Bench, proxy: list[tuple[str, str | None]]) -> None:
    bench.fetch()
    assert bench.place.read_bytes() == bench.content
    assert bench.liar.hub.removeprefix("https://") in {host for host, _ in proxy}
    assert {login for _, login in proxy} == {"Basic bWU6cEBzcw=="}


def test_hosts_that_need_no_proxy_get_none(
    bench: Bench, proxy: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    bench.fetch()
    assert proxy == []
    assert proxy_for("https", "example.com") is not None


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("socks5://127.0.0.1:9", "not supported"), ("http://127.0.0.1:9", "proxy to")],
)
def test_a_proxy_that_does_not_work_is_named(
    bench: Bench, address: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(RwkvError, match=sentence):
        bench.fetch(f"{REPO}:{FILE}")


@pytest.mark.parametrize("address", ["http://me:secret@[bad", "http://me:secret@127.0.0.1:99999"])
def test_a_proxy_that_is_no_url_is_named_without_its_password(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(StorageError, match="the proxy's address is no URL") as caught:
        Web().get("https://example.com/")
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize("token", ["a\nb: c", "\x1b[2J", "h\xe9"])
def test_a_key_that_cannot_be_one_is_never_sent(token: str) -> None:
    with pytest.raises(StorageError, match="signs that none has") as caught:
        Web(token)
    assert token not in caught.value.message


def test_a_key_is_read_from_no_pipe_and_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        monkeypatch.setenv("HF_TOKEN_PATH", str(place))
        assert hub_token() is None
