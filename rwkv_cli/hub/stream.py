"""Where the bytes of one file come from: finds out about it, and opens ranges of it."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from rwkv_cli.errors import RefusedError, StorageError
from rwkv_cli.hub.address import host_of
from rwkv_cli.hub.hashing import Promise
from rwkv_cli.hub.trouble import Trouble
from rwkv_cli.hub.web import Reply, Web

_SNIFF = 1024  # bytes that tell a page or a pointer from weights
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_SHA256 = re.compile(r'"?([0-9a-f]{64})"?')
_POINTER = b"version https://git-lfs.github.com/spec/"


class ChangedError(RefusedError):
    """The file became another one while it came."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server says of a file.

    Attributes:
        size: Bytes; None when it does not say.
        etag: The server's mark of this version of it; empty when there is none to rely on.
        ranges: Whether parts of it can be asked for.
        commit: Of the hub.
        promise: Its digest, where the server names one.
    """

    size: int | None
    etag: str
    ranges: bool
    commit: str | None
    promise: Promise


class Stream:
    """One file on the network.

    Args:
        web: The network.
        url: Where to ask; may lead elsewhere, to an address that is valid for a while only.
        what: What it is, for messages.
        size: Bytes that were promised.
        proven: Whether the bytes are compared with a digest in the end. Then marks of versions do
            not matter: the hosts that serve one file do not always agree on its mark.
    """

    def __init__(
        self, web: Web, url: str, what: str, size: int | None, *, proven: bool = False
    ) -> None:
        self._web, self._url, self._what, self._size = web, url, what, size
        self._proven = proven
        self._lock = threading.Lock()
        self._location: str | None = None
        self._etag = ""

    def probe(self) -> Facts:
        """Ask for the first bytes: what the file is, and whether parts of it can be had.

        Raises:
            RwkvError: It cannot be had, or is no file of weights.
        """
        reply = self._web.get(self._url, {"Range": f"bytes=0-{_SNIFF - 1}"}, what=self._what)
        try:
            head = reply.read_short(_SNIFF)
        finally:
            reply.close()
        self._refuse_impostors(reply, head)
        size = self._total(reply)
        self._require_size(size, reply)
        self._size = self._size if size is None else size
        self._remember(reply)
        etag = _strong(reply.headers.get("etag"))
        digest = _SHA256.fullmatch(reply.hops.get("x-linked-etag", ""))
        self._etag = "" if self._proven or digest else etag
        return Facts(
            self._size,
            etag,
            reply.status == 206,
            reply.hops.get("x-repo-commit"),
            Promise(digest.group(1) if digest else None),
        )

    def open(self, begin: int, end: int) -> Reply:
        """Ask for a range.

        Raises:
            ChangedError: The file is not the one it was.
            RwkvError: It cannot be had.
        """
        headers = {"Range": f"bytes={begin}-{end - 1}"}
        if self._etag:
            headers["If-Range"] = self._etag
        reply = self._fresh(headers)
        found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
        same = not self._etag or _strong(reply.headers.get("etag")) in ("", self._etag)
        if reply.status == 200 or not same or (found and found[3] not in ("*", str(self._size))):
            reply.close()
            raise ChangedError(f"{self._what} changed at {host_of(self._url)} while it came")
        if not found or (int(found[1]), int(found[2])) != (begin, end - 1):
            reply.close()
            raise RefusedError(f"{host_of(reply.url)} sends other bytes than it was asked for")
        return reply

    def open_whole(self) -> Reply:
        """Ask for all of it, from a server that gives no parts.

        Raises:
            RwkvError: It cannot be had.
        """
        reply = self._fresh({})
        try:
            self._require_size(self._total(reply), reply)
        except RefusedError:
            reply.close()
            raise
        return reply

    def forget(self) -> None:
        """Ask where the file is again next time: such addresses are valid for a while only."""
        with self._lock:
            self._location = None

    def _fresh(self, headers: dict[str, str]) -> Reply:
        """Ask where the last answer came from; if that is over, where the file is now."""
        with self._lock:
            location = self._location
        if location is not None:
            try:
                return self._web.get(location, headers, what=self._what)
            except Trouble:
                raise
            except StorageError:
                self.forget()
        reply = self._web.get(self._url, headers, what=self._what)
        self._remember(reply)
        return reply

    def _remember(self, reply: Reply) -> None:
        with self._lock:
            self._location = reply.url if reply.url != self._url else None

    def _total(self, reply: Reply) -> int | None:
        if reply.status == 206:
            found = _RANGE.fullmatch(reply.headers.get("content-range", ""))
            if not found or found[1] != "0" or found[3] == "*":
                raise RefusedError(f"{host_of(reply.url)} does not say which bytes it sends")
            return int(found[3])
        length = reply.headers.get("content-length", "")
        return int(length) if length.isdecimal() and len(length) < 19 else None

    def _require_size(self, size: int | None, reply: Reply) -> None:
        if size == 0 and self._size is None:
            raise RefusedError(f"{host_of(reply.url)} says that {self._what} is empty")
        if self._size is not None and size is not None and size != self._size:
            raise RefusedError(
                f"{host_of(reply.url)} offers {size:,} bytes of {self._what}, which has"
                f" {self._size:,}: it is cut short, or another file"
            )

    def _refuse_impostors(self, reply: Reply, head: bytes) -> None:
        """Refuse what is sent in place of weights."""
        start = head.lstrip()[:100].lower()
        kind = reply.headers.get("content-type", "").lower()
        if start.startswith((b"<!doctype html", b"<html")) or kind.startswith("text/html"):
            raise RefusedError(
                f"{host_of(reply.url)} sends a web page, not {self._what}",
                hint="a network that wants a login first does this; or the URL is of a page",
            )
        if head.startswith(_POINTER) and not (self._size and self._size < _SNIFF):
            raise RefusedError(
                f"{host_of(reply.url)} sends a Git LFS pointer, which stands for {self._what}",
                hint="the file itself is at .../resolve/..., not .../raw/...",
            )


def _strong(etag: str | None) -> str:
    """Give a mark that stands for the very bytes; others are none."""
    return etag if etag and etag.startswith('"') and len(etag) < 500 else ""
