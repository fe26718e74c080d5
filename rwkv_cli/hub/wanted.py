"""What a user asked to download: a catalogue name, a repository, or a URL; knows no network."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from rwkv_cli.errors import NotFoundError, RefusedError, UsageError
from rwkv_cli.hub import catalogue
from rwkv_cli.hub.matching import plain

WEIGHTS = (".pth", ".safetensors", ".gguf", ".bin", ".st")

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}")
_REVISION = re.compile(r"[\w.-]+(?:/[\w.-]+)*")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_PATHS = ("/", "./", "../", "~")
_LONGEST = 180  # bytes of a file's name: there must be room for what is added while it comes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something to fetch.

    Attributes:
        asked: What the user wrote.
        repo: OWNER/NAME on the hub; empty for a file from elsewhere.
        file: The file, or a part of its name; empty when it is to be chosen.
        revision: A branch, tag or commit; empty for the newest.
        url: Where the file is, when it is not on the hub.
        entry: What the catalogue knows of it.
    """

    asked: str
    repo: str = ""
    file: str = ""
    revision: str = ""
    url: str = ""
    entry: catalogue.Entry | None = None


def parse(asked: str, revision: str = "") -> Wanted:
    """Understand what was asked for.

    Args:
        asked: A catalogue name, `OWNER/REPO[:FILE][@REV]`, `hf://...` or a URL.
        revision: Of the repository, unless `asked` names one.

    Raises:
        NotFoundError: The catalogue has no such name.
        UsageError: It is none of these.
    """
    entry = catalogue.find(asked)
    if entry is not None:
        return Wanted(asked, entry.repo, entry.file, revision, entry=None if revision else entry)
    scheme, separator, rest = asked.partition("://")
    if separator and scheme in ("http", "https"):
        return _from_url(asked, revision)
    if separator and scheme == "hf":
        return _from_repo(asked, rest, revision)
    if separator:
        raise UsageError(f"cannot download from {scheme}://", hint="https:// and hf:// are known")
    if asked.startswith(_PATHS) or Path(asked).is_file():
        raise UsageError(
            f"{asked} is a path, and what is here needs no download",
            hint=f"rwkv chat -m {asked}, or rwkv models add {asked}",
        )
    if "/" in asked:
        return _from_repo(asked, asked, revision)
    raise _unknown(asked)


def _unknown(asked: str) -> NotFoundError:
    names = [name for entry in catalogue.entries() for name in entry.names]
    close = difflib.get_close_matches(plain(asked), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return NotFoundError(
        f"no published model is called {asked!r}", hint=f"{hint}rwkv download --list shows all"
    )


def _from_repo(asked: str, text: str, revision: str) -> Wanted:
    """Read OWNER/REPO, with the file after a colon or a slash, and a revision after @."""
    text, _, named = text.partition("@")
    place, _, file = text.partition(":")
    parts = place.strip("/").split("/", 2)
    repo, inside = "/".join(parts[:2]), parts[2] if len(parts) == 3 else ""
    revision = named or revision
    if not _REPO.fullmatch(repo) or (revision and not _is_revision(revision)):
        raise UsageError(
            f"{asked!r} is no repository, as in OWNER/REPO:FILE@REVISION",
            hint="rwkv download BlinkDL/rwkv7-g1 lists what that one has",
        )
    return Wanted(asked, repo, file or inside, revision)


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text


def _from_url(asked: str, revision: str) -> Wanted:
    """Read a URL; a page of the hub is what it shows."""
    try:
        url = urlsplit(asked)
        host, _port = url.hostname, url.port
    except ValueError as error:
        raise UsageError(f"{asked!r} is no URL: {error}") from error
    if not host:
        raise UsageError(f"{asked!r} is no URL: it names no host")
    if url.username or url.password:
        raise UsageError("a URL with a password in it is not taken", hint="set HF_TOKEN instead")
    if host in _HUB_HOSTS:
        parts = unquote(url.path).strip("/").split("/")
        repo, rest = "/".join(parts[:2]), parts[2:]
        if len(rest) > 2 and rest[0] in ("blob", "resolve", "raw"):
            return _from_repo(asked, f"{repo}:{'/'.join(rest[2:])}@{rest[1]}", revision)
        if len(rest) == 2 and rest[0] == "tree":
            return _from_repo(asked, f"{repo}@{rest[1]}", revision)
        if not rest:
            return _from_repo(asked, repo, revision)
    path = quote(unquote(url.path), safe="/~:@!$&'()*+,;=-._")
    clean = f"{url.scheme}://{url.netloc}{path}" + (f"?{url.query}" if url.query else "")
    return Wanted(asked, url=clean, file=unquote(url.path).rpartition("/")[2])


def safe_name(path: str) -> str:
    """Give the name under which a file is kept: the last part of its path, if that can do no harm.

    Raises:
        RefusedError: It would lie outside the folder, be hidden, or be no name on some system.
    """
    name = path.rpartition("/")[2]
    bad = any(c in '\\:*?"<>|' or ord(c) < 32 or ord(c) == 127 for c in name)
    bad = bad or not name.isprintable() or name.startswith((".", "-"))
    if not name or bad or name.endswith((".", " ")):
        raise RefusedError(f"{path!r} cannot be the name of a file here")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise RefusedError(f"{path!r} leads out of its folder")
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST or _RESERVED.fullmatch(name):
        raise RefusedError(f"{path!r} cannot be the name of a file here")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RefusedError(f"{path!r} cannot be the name of a file here") from error
    return name
