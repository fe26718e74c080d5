"""What a repository of the hub holds: one question to its API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rwkv_cli.errors import RefusedError
from rwkv_cli.hub.address import host_of
from rwkv_cli.hub.web import Web

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_FILES = 20_000


@dataclass(frozen=True, slots=True)
class Remote:
    """One file of a repository.

    Attributes:
        path: In the repository.
        size: Bytes; None where the server does not say.
        sha256: Of a large file.
        blob: Git's name of a small one: the SHA-1 of its content.
    """

    path: str
    size: int | None
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit.

    Attributes:
        repo: OWNER/NAME.
        commit: The commit, in hex; what was asked for where the server does not say.
        files: What it holds.
        licence: As its card states it.
    """

    repo: str
    commit: str
    files: tuple[Remote, ...]
    licence: str | None


def ask(web: Web, endpoint: str, repo: str, revision: str) -> Listing:
    """Ask what a repository holds.

    Args:
        web: The network.
        endpoint: The hub, or its mirror.
        repo: OWNER/NAME.
        revision: Branch, tag or commit; empty for the newest.

    Raises:
        RwkvError: It cannot be had, or the answer makes no sense.
    """
    named = quote(revision or "main", safe="")
    url = f"{endpoint}/api/models/{quote(repo)}/revision/{named}?blobs=true"
    answer = web.get_json(url, what=f"{repo}@{revision}" if revision else f"repository {repo}")
    siblings = answer.get("siblings") if isinstance(answer, dict) else None
    if not isinstance(siblings, list) or len(siblings) > _MOST_FILES:
        raise RefusedError(f"{host_of(endpoint)} does not say what {repo} holds")
    commit = answer.get("sha")
    return Listing(
        repo,
        commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else revision or "main",
        tuple(file for row in siblings if (file := _file(row)) is not None),
        _licence(answer),
    )


def _file(row: object) -> Remote | None:
    """Read one row; one that makes no sense is left out."""
    if not isinstance(row, dict) or not isinstance(row.get("rfilename"), str):
        return None
    lfs: Any = row.get("lfs")
    large = lfs if isinstance(lfs, dict) else {}
    size, digest = large.get("size", row.get("size")), large.get("sha256", large.get("oid"))
    blob = None if large else row.get("blobId")
    return Remote(
        row["rfilename"],
        size if type(size) is int and 0 <= size < 1 << 63 else None,
        digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else None,
        blob if isinstance(blob, str) and _COMMIT.fullmatch(blob) else None,
    )


def _licence(answer: dict[str, Any]) -> str | None:
    card = answer.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    return licence if isinstance(licence, str) and len(licence) < 100 else None


def url_of(endpoint: str, repo: str, commit: str, path: str) -> str:
    """Give the URL of a file of a repository."""
    return f"{endpoint}/{quote(repo)}/resolve/{quote(commit, safe='')}/{quote(path)}"
