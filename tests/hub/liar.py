"""A hub that lies: a TLS server with repositories, a second host for the bytes, and faults."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

CERTIFICATE = Path(__file__).with_name("localhost.pem")
EXPIRED = Path(__file__).with_name("expired.pem")
COMMIT = "c" * 40


@dataclass
class Seen:
    """A request that came."""

    path: str
    headers: dict[str, str]
    host: str  # "hub" or "cdn"


@dataclass
class Liar:
    """What the two servers say.

    Attributes:
        files: Repository to path to content.
        lie: Called for each request for bytes; True when it answered itself.
        seen: Every request.
        rate: Bytes a second and connection; 0 is as fast as it goes.
        ranges: Whether ranges are given.
        listed: What the API says of a file instead of the truth, by path.
        api: Whether there is an API.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lie: Callable[[Handler, bytes], bool] | None = None
    seen: list[Seen] = field(default_factory=list)
    rate: int = 0
    ranges: bool = True
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    api: bool = True
    hub: str = ""
    cdn: str = ""
    served: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, repo: str, path: str, content: bytes) -> bytes:
        """Put a file into a repository."""
        self.files.setdefault(repo, {})[path] = content
        return content

    def listing(self, repo: str) -> dict[str, Any]:
        """Say what the API says of a repository."""
        rows = []
        for path, content in self.files[repo].items():
            digest = hashlib.sha256(content).hexdigest()
            row: dict[str, Any] = {"rfilename": path, "size": len(content)}
            if path.endswith((".json", ".txt")):
                row["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            else:
                row["lfs"] = {"sha256": digest, "size": len(content)}
            row |= self.listed.get(path, {})
            rows.append(row)
        return {"sha": COMMIT, "siblings": rows, "cardData": {"license": "apache-2.0"}}


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub and for the host of the bytes."""

    protocol_version = "HTTP/1.1"
    liar: Liar
    name: str

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """Answer."""
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.liar.seen.append(Seen(self.path, headers, self.name))
        path = unquote(self.path.partition("?")[0])
        try:
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
                self._api(found[1])
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve|cdn)/([^/]+)/(.+)", path):
                self._file(found[1], found[3])
            else:
                self.reply(404)
        except (OSError, ssl.SSLError):
            self.close_connection = True

    def _api(self, repo: str) -> None:
        if not self.liar.api or repo not in self.liar.files:
            self.reply(404)
            return
        self.reply(200, json.dumps(self.liar.listing(repo)).encode(), {"Content-Type": "x/json"})

    def _file(self, repo: str, path: str) -> None:
        content = self.liar.files.get(repo, {}).get(path)
        if content is None:
            self.reply(404)
        elif self.liar.lie is None or not self.liar.lie(self, content):
            self.honest(content)

    def honest(self, content: bytes) -> None:
        """Do what a hub does: send on to the host of the bytes, which gives ranges."""
        if self.name == "hub" and self.liar.cdn:
            target = self.path.replace("/resolve/", "/cdn/")
            digest = hashlib.sha256(content).hexdigest()
            facts = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{digest}"'}
            self.reply(302, b"", {"Location": f"{self.liar.cdn}{target}", **facts})
            return
        self.send_part(content)

    def send_part(self, content: bytes, **changes: str) -> None:
        """Send the range that was asked for."""
        etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        begin, end, status = 0, len(content), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.liar.ranges and self.headers.get("If-Range", etag) == etag:
            begin, status = int(asked[1]), 206
            end = min(end, int(asked[2]) + 1) if asked[2] else end
        facts = {"ETag": etag}
        if status == 206:
            facts["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        self.reply(status, content[begin:end], {**facts, **changes})

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send an answer, at the rate that was set."""
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        step = max(1, self.liar.rate // 50) if self.liar.rate else max(1, len(body))
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            with self.liar.lock:
                self.liar.served += len(body[at : at + step])
            if self.liar.rate:
                time.sleep(0.02)

    def hang_up(self) -> None:
        """End the connection without a word."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that go away are what these tests are about."""


@contextmanager
def serving(liar: Liar, name: str, certificate: Path | None = CERTIFICATE) -> Iterator[str]:
    """Run one of the two servers: its URL."""
    handler = type("Handler", (Handler,), {"liar": liar, "name": name})
    server = _Server(("127.0.0.1", 0), handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    host = "localhost" if name == "hub" else "127.0.0.1"
    scheme = "https" if certificate is not None else "http"
    try:
        yield f"{scheme}://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
