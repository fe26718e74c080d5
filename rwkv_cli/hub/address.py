"""Where a server may send us on to, and who may learn the user's key; knows no HTTP."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urljoin, urlsplit

from rwkv_cli.checkpoints.tensors import printable
from rwkv_cli.errors import RefusedError
from rwkv_cli.places import OFFICIAL_HUB


def may_see_token(url: str) -> bool:
    """Tell whether a URL is the hub's own: no mirror and no target of a redirect is."""
    official, asked = urlsplit(OFFICIAL_HUB), urlsplit(url)
    return (asked.scheme, asked.netloc.lower()) == (official.scheme, official.netloc)


def host_of(url: str) -> str:
    """Give the host, with the port where it is an unusual one."""
    return printable(urlsplit(url).netloc.rpartition("@")[2])


def redirected(first: str, here: str, location: str, *, by_proxy: bool) -> str:
    """Follow a redirect, if that is safe.

    Args:
        first: The URL that was asked for at first.
        here: The one that answered.
        location: Where it says to go.
        by_proxy: Whether a proxy resolves the names of hosts.

    Raises:
        RefusedError: It leads to a file, to plain HTTP from HTTPS, or from the internet into this
            machine or its network.
    """
    try:
        target = urljoin(here, location)
        url = urlsplit(target)
        host, _port = url.hostname, url.port
    except ValueError as error:
        raise RefusedError(f"{host_of(here)} sends us to nowhere: {printable(location)}") from error
    if url.scheme not in ("http", "https") or not host:
        raise RefusedError(
            f"{host_of(here)} sends us to {printable(target)}, which is no web address"
        )
    if url.username or url.password:
        raise RefusedError(f"{host_of(here)} sends us to an address with a password in it")
    if url.scheme == "http" and urlsplit(first).scheme != "http":
        raise RefusedError(
            f"{host_of(here)} sends us to {printable(host)} without encryption (http)",
            hint="nothing was downloaded from there",
        )
    began = urlsplit(first).hostname or ""
    if host != began and not by_proxy and is_near(host) and not is_near(began):
        raise RefusedError(
            f"{host_of(here)} sends us to {printable(host)}, which is in your own network"
        )
    return target


def is_near(host: str) -> bool:
    """Tell whether a host is this machine or one in its own network."""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False  # connecting will say so
    return any(not ipaddress.ip_address(address.partition("%")[0]).is_global for address in found)
