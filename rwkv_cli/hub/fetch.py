"""From what was asked for to a model in its place: it is here, in a cache, or on the network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from rwkv_cli.errors import RefusedError, RwkvError, StorageError, UsageError
from rwkv_cli.files import put_folder, reason, remove_leftovers
from rwkv_cli.hub import catalogue, present, sidecar
from rwkv_cli.hub.choice import Ask, Model, choose
from rwkv_cli.hub.hashing import Promise
from rwkv_cli.hub.listing import Listing, Remote, ask, url_of
from rwkv_cli.hub.onefile import OTHER, Brought, Manner, Target, bring, work_folder
from rwkv_cli.hub.part import room_for
from rwkv_cli.hub.patience import insist
from rwkv_cli.hub.sharing import alone
from rwkv_cli.hub.sidecar import Sidecar
from rwkv_cli.hub.trouble import MissingError
from rwkv_cli.hub.wanted import WEIGHTS, Wanted, safe_name
from rwkv_cli.hub.watching import Watch
from rwkv_cli.hub.web import Web
from rwkv_cli.sizes import size_of


@dataclass(frozen=True)
class Fetcher:
    """Brings models into a folder.

    Attributes:
        folder: Where models are kept.
        endpoint: The hub, or its mirror.
        cache: Where the hub's own tools keep what they downloaded.
        web: The network; None when it must not be used.
        watch: Is told how far it is.
        ask: Lets a person choose among the files of a repository.
        force: Whether a file of the same name may be replaced.
        manner: How to go about it.
    """

    folder: Path
    endpoint: str
    cache: Path
    web: Web | None
    watch: Watch
    ask: Ask | None = None
    force: bool = False
    manner: Manner = field(default_factory=Manner)

    def fetch(self, wanted: Wanted) -> Path:
        """Bring a model, and what it needs: its path.

        Raises:
            RwkvError: It cannot be had.
        """
        found = None if self.force else present.in_folder(self.folder, wanted)
        if found is not None:
            self.watch.say(f"{found.name} is here already")
        else:
            found = self._from_url(wanted) if wanted.url else self._from_repo(wanted)
        self._bring_tokenizer(found, wanted.entry)
        return found

    def _network(self, wanted: str) -> Web:
        """Give the network.

        Raises:
            StorageError: It must not be used.
        """
        if self.web is None:
            raise _barred(wanted)
        return self.web

    # Repositories

    def listing(self, wanted: Wanted) -> Listing:
        """Say what a repository holds.

        Raises:
            RwkvError: Nobody can tell.
        """
        if not wanted.repo:
            raise UsageError(f"{wanted.asked} is no repository", hint="rwkv download --list")
        found = self._listing(wanted)
        if found is None:
            raise _barred(wanted.asked)
        return found

    def _from_repo(self, wanted: Wanted) -> Path:
        listing = self._listing(wanted)
        if listing is None:
            return self._offline(wanted)
        model = self._chosen(listing, wanted)
        place = self.folder / model.name
        if not self.force and present.is_same(place, model, listing, self.watch):
            self.watch.say(f"{place.name} is here already")
            if sidecar.read(place) is None:
                self._note(place, listing, model, None)
            return place
        present.require_free(place, force=self.force)
        held = present.from_cache(self.cache, listing, model, place, self.watch)
        if held is not None:
            self.watch.say(f"{model.name} was in the cache of huggingface_hub: used from there")
            if held == place:
                self._note(place, listing, model, None)
            return held
        web = self._network(wanted.asked)
        if model.folder:
            return self._folder(web, listing, model, place)
        label = wanted.entry.name if wanted.entry else ""
        brought = self._file(web, listing, model.files[0], place, label)
        if not brought.by_other:
            self._note(place, listing, model, brought)
        return place

    def _listing(self, wanted: Wanted) -> Listing | None:
        """Ask what the repository holds; a mirror that cannot say, but has the file, is enough."""
        if self.web is None:
            return present.cached_listing(self.cache, wanted)
        web = self.web
        self.watch.say(f"asking {self.endpoint.partition('://')[2]} for {wanted.repo}")
        try:
            return insist(lambda: ask(web, self.endpoint, wanted.repo, wanted.revision), self.watch)
        except MissingError:
            if not wanted.file.endswith(WEIGHTS):
                raise
            digest = wanted.entry.sha256 if wanted.entry else None
            licence = wanted.entry.licence if wanted.entry else None
            file = Remote(wanted.file, None, digest)
            return Listing(wanted.repo, wanted.revision or "main", (file,), licence)

    def _offline(self, wanted: Wanted) -> Path:
        found = present.remembered(self.folder, wanted)
        if found is None:
            raise _barred(wanted.asked)
        return found

    def _chosen(self, listing: Listing, wanted: Wanted) -> Model:
        """Find the file, and hold it to what the catalogue knows.

        Raises:
            RefusedError: The repository has another file under that name now.
        """
        model = choose(listing, wanted.file, self.ask)
        known = wanted.entry.sha256 if wanted.entry else None
        if known is None or model.folder:
            return model
        (file,) = model.files
        if file.sha256 not in (None, known):
            raise RefusedError(
                f"{listing.repo} has another {file.path} than the one this program knows",
                hint=f"to take it all the same: rwkv download {listing.repo}:{file.path}",
            )
        return replace(model, files=(replace(file, sha256=known),))

    def _file(
        self, web: Web, listing: Listing, file: Remote, place: Path, label: str = ""
    ) -> Brought:
        target = Target(
            url_of(self.endpoint, listing.repo, listing.commit, file.path),
            f"{listing.repo}:{file.path}",
            place,
            file.size,
            Promise(file.sha256, file.blob),
            listing.commit,
            key=f"{listing.repo}:{file.path}",
            label=label,
        )
        return self._brought(web, target)

    def _brought(self, web: Web, target: Target) -> Brought:
        remove_leftovers(self.folder)
        brought = bring(web, target, work_folder(self.folder), self.manner, self.watch)
        if not brought.verified:
            self.watch.say(
                f"{target.place.name} could not be checked: nobody publishes its checksum"
                f" (sha256 {brought.sha256})"
            )
        return brought

    def _folder(self, web: Web, listing: Listing, model: Model, place: Path) -> Path:
        """Bring a folder: under its name when all of its files are there."""
        work = work_folder(self.folder)
        key = f"{listing.repo}:{model.path}@{listing.commit}"
        name = f"{model.name}.{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        new = work / f"{name}.folder"

        def waiting() -> None:
            self.watch.begin(model.name, model.size or None, 0)
            self.watch.at(size_of(new), OTHER)

        with alone(work / f"{name}.lock", waiting):
            self.watch.end()
            if self.force or not present.is_same(place, model, listing, self.watch):
                rows = self._files(web, listing, model, new)
                put_folder(new, place)
                self._note(place, listing, model, None, rows)
        return place

    def _files(
        self, web: Web, listing: Listing, model: Model, new: Path
    ) -> dict[str, dict[str, object]]:
        """Bring the files of a folder that are not there: size and digest of each of all."""
        rows: dict[str, dict[str, object]] = {}
        try:
            new.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {new}: {reason(error)}") from error
        room_for(new, model.size - size_of(new))
        for number, file in enumerate(model.files, 1):
            name = safe_name(file.path)
            label = f"{model.name} {number}/{len(model.files)}"
            if present.is_same(new / name, _single(file), listing, self.watch):
                digest = file.sha256 or present.digests(new / name, self.watch).sha256
            else:
                digest = self._file(web, listing, file, new / name, label).sha256
            rows[name] = {"size": file.size, "sha256": digest}
        return rows

    def _note(
        self,
        place: Path,
        listing: Listing,
        model: Model,
        brought: Brought | None,
        files: dict[str, dict[str, object]] | None = None,
    ) -> None:
        """Remember where a model came from."""
        file = model.files[0] if not model.folder else None
        digest = brought.sha256 if brought else file.sha256 if file else None
        sidecar.write(
            place,
            Sidecar(
                url=url_of(self.endpoint, listing.repo, listing.commit, model.path),
                repo=listing.repo,
                file=model.path,
                revision=brought.commit if brought and brought.commit else listing.commit,
                size=brought.size if brought else model.size,
                sha256=digest,
                etag=brought.etag if brought else None,
                license=listing.licence,
                verified=brought.verified if brought else all(f.sha256 for f in model.files),
                files=dict(files) if files else None,
            ),
        )

    # Everything else

    def _from_url(self, wanted: Wanted) -> Path:
        place = self.folder / safe_name(wanted.file)
        known = present.remembered(self.folder, wanted)
        if known is not None and not self.force:
            self.watch.say(f"{known.name} is here already")
            return known
        present.require_free(place, force=self.force)
        brought = self._brought(self._network(wanted.url), Target(wanted.url, wanted.url, place))
        if not brought.by_other:
            note = Sidecar(
                wanted.url, size=brought.size, sha256=brought.sha256, etag=brought.etag,
                verified=brought.verified,
            )  # fmt: skip
            sidecar.write(place, note)
        return place

    def _bring_tokenizer(self, model: Path, entry: catalogue.Entry | None) -> None:
        """Bring the tokenizer of a model that needs one which no package has."""
        name = entry.tokenizer if entry else _tokenizer_of(model)
        needed = catalogue.companion(name or "")
        folder = model if model.is_dir() else model.parent
        if needed is None or _has_20b(folder):
            return
        place = folder / needed.name
        web = self._network(needed.name)
        listing = insist(lambda: ask(web, self.endpoint, needed.repo, ""), self.watch)
        found = [file for file in listing.files if file.path == needed.file]
        if not found:
            raise StorageError(
                f"{needed.repo} has no {needed.file}, which {model.name} needs as {needed.name}"
            )
        self._file(web, listing, found[0], place)
        if not _has_20b(folder):
            place.unlink()
            raise RefusedError(f"{needed.repo}:{needed.file} is not the tokenizer it should be")


def _barred(wanted: str) -> StorageError:
    """Say that something would have to come over the network, which must not be used."""
    return StorageError(
        f"{wanted} is not here, and --offline forbids the network",
        hint="without --offline, RWKV_OFFLINE and HF_HUB_OFFLINE it is downloaded",
    )


def _single(file: Remote) -> Model:
    return Model(file.path, safe_name(file.path), (file,))


def _tokenizer_of(model: Path) -> str | None:
    """Tell from its header which tokenizer a model needs; None where that does not tell."""
    from rwkv_cli.engine.modelfile import open_model

    try:
        return open_model(model).tokenizer
    except RwkvError:
        return None  # whoever loads it will say what is wrong


def _has_20b(folder: Path) -> bool:
    """Tell whether models of a folder find the 20B tokenizer."""
    from rwkv_cli.text.bpe import open_20b

    try:
        open_20b(folder)
    except RwkvError:
        return False
    return True
