"""What the hub's own tools have downloaded already: found, and used where it lies."""

from __future__ import annotations

from pathlib import Path

from rwkv_cli.hub.choice import Model


def held(cache: Path, repo: str, commit: str, model: Model) -> Path | None:
    """Find a model in the cache of the hub's tools.

    Args:
        cache: The folder `hub`.
        repo: OWNER/NAME.
        commit: The one wanted.
        model: The file or folder.

    Returns:
        The file, or the folder with all its files; None when it is not all there, or any file has
        another size than it should.
    """
    root = cache / ("models--" + repo.replace("/", "--"))
    snapshot = root / "snapshots" / commit
    for file in model.files:
        found = _blob(root, file.sha256) if not model.folder else None
        found = found or snapshot / file.path
        if not _is_whole(found, file.size):
            return None
        if not model.folder:
            return found.resolve()
    return snapshot / model.path if model.files else None


def known_commit(cache: Path, repo: str, revision: str) -> str | None:
    """Tell which commit a branch had when it was last asked for; None when it never was."""
    ref = cache / ("models--" + repo.replace("/", "--")) / "refs" / (revision or "main")
    try:
        commit = ref.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if commit.isalnum() else None


def files_at(cache: Path, repo: str, commit: str) -> dict[str, int]:
    """List the files of a commit that are there, with their sizes."""
    snapshot = cache / ("models--" + repo.replace("/", "--")) / "snapshots" / commit
    try:
        return {
            path.relative_to(snapshot).as_posix(): path.stat().st_size
            for path in sorted(snapshot.rglob("*"))
            if path.is_file()
        }
    except OSError:
        return {}


def _blob(root: Path, sha256: str | None) -> Path | None:
    path = root / "blobs" / sha256 if sha256 else None
    return path if path is not None and path.is_file() else None


def _is_whole(path: Path, size: int | None) -> bool:
    try:
        return path.is_file() and size in (None, path.stat().st_size)
    except OSError:
        return False
