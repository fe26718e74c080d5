"""What `rwkv doctor` says about the machine's memory, the terminal, and the way to the network."""

from __future__ import annotations

import locale
from typing import Any
from urllib.parse import urlsplit

from rwkv_cli.cli.doctorprobe import Probe
from rwkv_cli.native.hostmemory import free_memory, total_memory
from rwkv_cli.places import hub_endpoint, hub_token_place, named_proxies, offline_by
from rwkv_cli.render.streams import STDERR, STDIN, STDOUT, is_terminal, terminal_width
from rwkv_cli.render.style import shows_colours
from rwkv_cli.sizes import amount

_NARROW = 40  # columns below which tables are cut short


def memory() -> Probe:
    """Tell how much memory there is and how much of it is free; that of cards is told with them."""
    facts: dict[str, Any] = {"total": total_memory(), "free": free_memory()}
    known = {key: amount(size) for key, size in facts.items() if size is not None}
    if not known:
        return Probe("the system does not tell", None, facts)
    what = f"{known.get('total', 'an unknown amount')} of RAM"
    return Probe(f"{what}, {known['free']} free" if "free" in known else what, None, facts)


def terminal() -> Probe:
    """Tell what the three streams are, and what may be shown on them."""
    names = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR}
    facts: dict[str, Any] = {name: is_terminal(number) for name, number in names.items()}
    facts |= {"columns": terminal_width() if facts["stdout"] else None}
    facts |= {"colours": shows_colours(STDOUT), "encoding": locale.getpreferredencoding(False)}
    on = [name for name in names if facts[name]]
    if not facts["stdout"]:
        return Probe(f"stdout goes elsewhere; terminals: {', '.join(on) or 'none'}", None, facts)
    colours = "colours" if facts["colours"] else "no colours"
    what = f"{facts['columns']} columns, {colours}, {facts['encoding']}"
    narrow = facts["columns"] < _NARROW
    return Probe(what, "widen the window: tables are cut short" if narrow else None, facts)


def download() -> Probe:
    """Tell how a download would reach the network; nothing is asked of it. No secret is told: of a
    token only that there is one, of an address neither user nor password.
    """
    endpoint, token, offline = hub_endpoint(), hub_token_place(), offline_by()
    proxies = {name: bare(url) for name, url in named_proxies().items()}
    facts: dict[str, Any] = {
        "endpoint": bare(endpoint),
        "proxies": proxies,
        "token": token,
        "offline": offline,
    }
    what = f"from {facts['endpoint']}"
    if offline:
        what += f"; offline, by {offline}"
    what += f"; proxies: {', '.join(f'{n} {u}' for n, u in proxies.items()) or 'none'}"
    what += f"; token: {'in ' + token if token else 'none'}"
    step = None
    if not endpoint.startswith("https://"):
        step = "let HF_ENDPOINT begin with https://, or anybody on the way can change what comes"
    elif offline:
        step = f"unset {offline} to download"
    return Probe(what, step, facts)


def bare(url: str) -> str:
    """Give an address without what may be secret in it: scheme, host and port alone."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return "(no address)"
    if not host:
        return "(no address)"
    scheme = f"{parts.scheme}://" if parts.scheme else ""
    return f"{scheme}{host}" + (f":{port}" if port else "")
