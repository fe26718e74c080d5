"""One request at a time to a server that may lie: TLS, proxies, redirects and the token; the only
home of the HTTP client.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from rwkv_cli.checkpoints.bounded_json import TooManyValuesError, parse
from rwkv_cli.checkpoints.tensors import printable
from rwkv_cli.errors import RefusedError, StorageError
from rwkv_cli.hub.address import host_of, may_see_token, redirected
from rwkv_cli.hub.hurry import deadline, hurried
from rwkv_cli.hub.trouble import Trouble, of_exception, of_status
from rwkv_cli.places import named_certificates, proxy_for
from rwkv_cli.version import __version__

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

CONNECT, STALL = 10.0, 30.0  # seconds
SHORT = 60.0  # seconds for an answer of a few kilobytes
_REDIRECTS = 5
_LARGEST_JSON = 16 << 20
_REDIRECTING = (301, 302, 303, 307, 308)


class Reply:
    """An answer whose body is still to be read.

    Attributes:
        url: Who answered in the end.
        status: 200 or 206.
        headers: Of the last answer.
        hops: The headers of all answers, those of redirects included, in lower case.
    """

    def __init__(self, response: BaseHTTPResponse, url: str, hops: Mapping[str, str]) -> None:
        self._response = response
        self.url, self.status, self.headers, self.hops = (
            url,
            response.status,
            response.headers,
            hops,
        )

    def read(self, amount: int) -> bytes:
        """Read that many bytes, or up to the end.

        Raises:
            Trouble: The connection broke or went silent.
        """
        try:
            return self._response.read(amount)
        except Exception as error:
            raise of_exception(error, host_of(self.url)) from error

    def read_some(self, amount: int) -> bytes:
        """Read what has come, at most that many bytes; nothing is the end.

        Raises:
            Trouble: The connection broke or went silent.
        """
        try:
            return self._response.read1(amount)
        except Exception as error:
            raise of_exception(error, host_of(self.url)) from error

    def read_short(self, limit: int) -> bytes:
        """Read something short, up to a limit, in a time that somebody can wait for.

        Raises:
            Trouble: The connection broke, or drips.
        """
        blocks, size = [], 0
        with deadline(SHORT, self.wake) as passed:
            try:
                while size < limit and not passed.is_set():
                    block = self.read_some(limit - size)
                    if not block:
                        break
                    blocks.append(block)
                    size += len(block)
            finally:
                if passed.is_set():
                    raise Trouble(f"{host_of(self.url)} answers far too slowly")
        return b"".join(blocks)

    def wake(self) -> None:
        """Let a thread that waits in `read` fail at once; safe to call from another one."""
        try:
            self._response.shutdown()
        except (OSError, ValueError, RuntimeError):
            return  # it is at its end

    def close(self) -> None:
        """Let go of the connection; one whose body was read to its end can be used again."""
        if self._response.length_remaining == 0:
            self._response.drain_conn()  # of nothing, which the library wants to have seen
            self._response.release_conn()
        else:
            self._response.close()


class Web:
    """The network, as far as a download needs it.

    Args:
        token: The user's key to the hub.
        connections: Most at a time to one server.

    Raises:
        StorageError: The key cannot be one.
    """

    def __init__(self, token: str | None = None, connections: int = 4) -> None:
        if token and not (token.isascii() and token.isprintable()):
            raise StorageError("the key to the hub holds signs that none has", hint="see HF_TOKEN")
        self._token, self._connections = token, connections
        self._managers: dict[str | None, PoolManager] = {}

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, what: str = "it") -> Reply:
        """Ask for a URL, and follow where it leads.

        Args:
            url: http or https.
            headers: Of the request.
            what: What it is, for messages.

        Raises:
            Trouble: It failed, and may work another time.
            StorageError: It failed for good.
            RefusedError: It is not what we may take.
        """
        at, hops = url, dict[str, str]()
        for _ in range(_REDIRECTS + 1):
            response = self._ask(at, headers or {})
            names = {name.lower(): value for name, value in response.headers.items()}
            hops = {**names, **{k: v for k, v in hops.items() if k.startswith("x-")}}
            if response.status not in _REDIRECTING:
                return _checked(Reply(response, at, hops), what)
            response.close()
            if not names.get("location"):
                raise StorageError(f"{host_of(at)} sends us on without saying where")
            by_proxy = _proxy(at) is not None
            at = redirected(url, at, names["location"], by_proxy=by_proxy)
        raise RefusedError(f"{host_of(url)} sends us on and on ({_REDIRECTS} times)")

    def get_json(self, url: str, *, what: str) -> Any:
        """Ask for a JSON document.

        Raises:
            RwkvError: As `get`; or it is no JSON, or too long.
        """
        reply = self.get(url, {"Accept": "application/json"}, what=what)
        try:
            text = reply.read_short(_LARGEST_JSON + 1)
        finally:
            reply.close()
        if len(text) > _LARGEST_JSON:
            raise RefusedError(f"{host_of(url)} says far too much of {what}")
        try:
            return parse(text)
        except TooManyValuesError as error:
            raise RefusedError(f"{host_of(url)} says far too much of {what}") from error
        except ValueError as error:
            kind = "a web page" if text.lstrip()[:1] == b"<" else "something else"
            raise RefusedError(
                f"{host_of(reply.url)} answers with {kind} instead of JSON",
                hint="a network that wants a login first does this; HF_ENDPOINT may be wrong",
            ) from error

    def _ask(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send one request; a redirect is an answer."""
        sent = {"Accept-Encoding": "identity", "User-Agent": f"rwkv-cli/{__version__}", **headers}
        if self._token and may_see_token(url):
            sent["Authorization"] = f"Bearer {self._token}"
        manager = self._manager(url)
        try:
            return manager.request(
                "GET", url, headers=sent, redirect=False, retries=False, preload_content=False,
                decode_content=False,
            )  # fmt: skip
        except Exception as error:
            raise of_exception(error, host_of(url)) from error

    def _manager(self, url: str) -> PoolManager:
        """Give the connections for a URL: straight ones, or those of its proxy."""
        proxy = _proxy(url)
        if proxy not in self._managers:
            try:
                self._managers[proxy] = _manager(proxy, self._connections)
            except ValueError as error:
                raise StorageError(
                    "the proxy's address is no URL", hint="see HTTPS_PROXY"
                ) from error
        return self._managers[proxy]


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    proxy = proxy_for(parts.scheme, parts.hostname or "")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _manager(proxy: str | None, connections: int) -> PoolManager:
    from urllib3 import PoolManager, ProxyManager, Timeout, make_headers

    options: dict[str, Any] = {
        "ssl_context": _trust(),
        "timeout": Timeout(connect=CONNECT, read=STALL),
        "maxsize": connections,
    }
    if proxy is None:
        return hurried(PoolManager(**options), STALL)
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https"):
        raise StorageError(
            f"proxies of the kind {parts.scheme}:// are not supported", hint="see HTTPS_PROXY"
        )
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        options["proxy_headers"] = make_headers(proxy_basic_auth=login)
    address = parts.netloc.rpartition("@")[2]
    return hurried(ProxyManager(f"{parts.scheme}://{address}", **options), STALL)


def _trust() -> ssl.SSLContext:
    """Say whom we believe: the authorities the user named, or those of the system."""
    file, folder = named_certificates()
    if file or folder:
        try:
            return ssl.create_default_context(cafile=file, capath=folder)
        except OSError as error:
            raise StorageError(f"SSL_CERT_FILE: {file} cannot be used") from error
    from truststore import SSLContext

    return SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _checked(reply: Reply, what: str) -> Reply:
    """Refuse an answer that brings no bytes, or brings them disguised."""
    wrong = of_status(reply.status, reply.hops, host_of(reply.url), what)
    encoding = reply.hops.get("content-encoding", "identity").strip().lower()
    if wrong is None and encoding not in ("", "identity"):
        wrong = RefusedError(
            f"{host_of(reply.url)} sends {what} compressed ({printable(encoding)}), although plain"
            " bytes were asked for: what it would become cannot be checked"
        )
    if wrong is not None:
        reply.close()
        raise wrong
    return reply
