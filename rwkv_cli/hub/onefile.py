"""One file, from a URL to its place: lock, part, transfer, proof, name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rwkv_cli.errors import RefusedError, StorageError
from rwkv_cli.files import make_folder, reason
from rwkv_cli.hub.hashing import NOTHING, Hasher, Promise
from rwkv_cli.hub.part import Part, progress_of
from rwkv_cli.hub.patience import GIVE_UP, insist
from rwkv_cli.hub.sharing import alone
from rwkv_cli.hub.stream import ChangedError, Facts, Stream
from rwkv_cli.hub.transfer import Transfer
from rwkv_cli.hub.watching import Watch
from rwkv_cli.hub.web import Web

OTHER = "another rwkv is downloading it"
_FOLDER = ".downloads"  # in the models folder: a rename does not cross disks


@dataclass(frozen=True, slots=True)
class Target:
    """A file to bring.

    Attributes:
        url: Where to ask for it.
        what: What to call it.
        place: Where it shall lie.
        size: Bytes, where they are known.
        promise: What it must be.
        version: What tells this version of it from others: a commit, or nothing.
        key: What stays the same when only the URL changes; the URL, where it is empty.
        label: What to call it while it comes; the name of its place, where it is empty.
    """

    url: str
    what: str
    place: Path
    size: int | None = None
    promise: Promise = NOTHING
    version: str = ""
    key: str = ""
    label: str = ""

    @property
    def identity(self) -> str:
        """What tells this file from others, whatever its version."""
        return self.key or self.url

    @property
    def shown(self) -> str:
        """What to call it while it comes."""
        return self.label or self.place.name


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of it.

    Attributes:
        size: Bytes.
        sha256: As found.
        verified: Whether that was promised.
        etag: The server's mark.
        commit: Of the hub, where the server told.
        by_other: Whether another process brought it while this one waited.
    """

    size: int
    sha256: str | None
    verified: bool
    etag: str | None = None
    commit: str | None = None
    by_other: bool = False


@dataclass(frozen=True, slots=True)
class Manner:
    """How to go about it.

    Attributes:
        connections: Ranges at a time.
        give_up: Seconds without a byte after which it has failed; 0 is never.
    """

    connections: int = 4
    give_up: float = GIVE_UP


def work_folder(folder: Path) -> Path:
    """Give the folder, within that of the models, in which files lie while they come.

    Raises:
        StorageError: It cannot be made.
    """
    path = folder / _FOLDER
    make_folder(path)
    return path


def bring(web: Web, target: Target, work: Path, manner: Manner, watch: Watch) -> Brought:
    """Bring a file to its place; it is there when all of it is there and proven, and not before.

    Args:
        web: The network.
        target: The file.
        work: Where it lies while it comes.
        manner: How.
        watch: Is told how far it is.

    Raises:
        RwkvError: It cannot be had, or is not what was promised.
    """
    key = hashlib.sha256(f"{target.identity}\0{target.place.name}".encode()).hexdigest()[:16]
    part = work / f"{target.place.name}.{key}.part"
    before = _mark(target.place)

    def waiting() -> None:
        done, total = progress_of(part.with_name(part.name + ".journal"))
        watch.begin(target.shown, total or target.size, done)
        watch.at(done, OTHER)

    with alone(part.with_name(part.name + ".lock"), waiting):
        if _mark(target.place) not in (None, before):
            watch.end()
            return Brought(target.place.stat().st_size, None, verified=True, by_other=True)
        try:
            return _bring_alone(web, target, part, manner, watch)
        except ChangedError as error:
            watch.say(f"{error.message}: starting anew")
            return _bring_alone(web, target, part, manner, watch)
        finally:
            watch.end()


def _mark(path: Path) -> tuple[int, int] | None:
    """Tell one file under a name from the next one under it; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _bring_alone(web: Web, target: Target, path: Path, manner: Manner, watch: Watch) -> Brought:
    known = target.promise.known
    stream = Stream(web, target.url, target.what, target.size, proven=known)
    facts = insist(stream.probe, watch)
    promise = target.promise if known else facts.promise
    part = _taken_up(target, facts, promise, path, watch)
    try:
        found, size = _transferred(stream, facts, part, manner, watch)
    except BaseException as error:
        if isinstance(error, ChangedError) and not promise.known:
            part.discard()
        part.close()
        raise
    _require(promise, found, part, target.what)
    part.publish(target.place)
    return Brought(size, found.sha256, promise.known, facts.etag or None, facts.commit)


def _transferred(
    stream: Stream, facts: Facts, part: Part, manner: Manner, watch: Watch
) -> tuple[Promise, int]:
    """Bring the bytes: what they are, and how many."""
    hasher = Hasher(part.read, part.size)
    try:
        if part.size is None or part.done < part.size:
            connections = manner.connections if facts.ranges and part.size is not None else 0
            Transfer(
                stream, part, hasher, watch, connections=connections, give_up=manner.give_up
            ).run()
        size = part.front if part.size is None else part.size
        return hasher.finish(size, lambda done: watch.checking(done, size)), size
    except OSError as error:
        raise StorageError(f"cannot read {part.path}: {reason(error)}") from error
    finally:
        hasher.stop()


def _taken_up(target: Target, facts: Facts, promise: Promise, path: Path, watch: Watch) -> Part:
    """Go on with what is there of this very file, or begin."""
    proof = promise.sha256 or promise.blob
    identity = {"of": target.identity, "promise": proof, "whole": facts.size}
    if not proof:
        identity |= {"etag": facts.etag, "version": target.version}
    part = Part(path, identity)
    part.open(facts.size)
    if not facts.ranges:
        if part.done:
            watch.say("this server cannot continue a file: starting from its beginning")
        part.reset()
    if part.other:
        watch.say(f"{target.what} has changed since this download began: starting anew")
    watch.begin(target.shown, facts.size, part.done)
    return part


def _require(promise: Promise, found: Promise, part: Part, what: str) -> None:
    """Refuse a file that is not the promised one.

    Raises:
        RefusedError: It is not; it was deleted.
    """
    if promise.kept_by(found):
        return
    part.discard()
    expected, got = (promise.sha256, found.sha256) if promise.sha256 else (promise.blob, found.blob)
    raise RefusedError(
        f"{what} has the wrong checksum: {(got or 'none')[:16]}… instead of"
        f" {(expected or '')[:16]}…; it was deleted",
        hint="run the same command again; when that does not help, try without a proxy or mirror",
    )
