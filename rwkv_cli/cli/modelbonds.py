"""What belongs to a model, and is of no use without it: conversations, states, packed weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rwkv_cli.cli.modelfacts import Known, known_models
from rwkv_cli.engine.packcache import Cached, cached_files, cached_path
from rwkv_cli.engine.packed import DTYPES
from rwkv_cli.errors import NotFoundError, RwkvError, StorageError
from rwkv_cli.places import chats_folder, prefix_folder


@dataclass(frozen=True, slots=True)
class Bonds:
    """What belongs to the weights of a model.

    Attributes:
        chats: IDs of conversations, the latest first.
        states: Names of states.
        packings: Packed weights in the cache.
        twins: Names of other models of the same weights; with one of them, nothing is lost.
    """

    chats: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    packings: tuple[Cached, ...] = ()
    twins: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Known) -> Bonds:
        """Find what belongs to a model; to one whose header cannot be read, nothing is known to."""
        if model.file is None:
            return cls()
        weights = model.file.fingerprint()
        twins = tuple(
            other.name
            for other in known_models()
            if other.path != model.path and other.file and other.file.fingerprint() == weights
        )
        return cls(_chats(weights), _states(weights), _packings(model), twins)

    def told(self) -> dict[str, Any]:
        """Give the facts."""
        return {
            "packings": [cached.name for cached in self.packings],
            "chats": list(self.chats),
            "states": list(self.states),
            "same weights": list(self.twins),
        }


def _chats(weights: str) -> tuple[str, ...]:
    from rwkv_cli.store.budget import Budget
    from rwkv_cli.store.library import Library
    from rwkv_cli.store.readonly import ReadOnlyDisk

    try:
        budget = Budget(chats_folder(), prefix_folder())
        logs = Library(chats_folder(), budget, disk=ReadOnlyDisk()).recent()
    except (StorageError, NotFoundError):  # no home, or a folder that cannot be read: none is ours
        return ()
    return tuple(log.id for log in logs if log.begin and log.begin.identity.weights == weights)


def _states(weights: str) -> tuple[str, ...]:
    from rwkv_cli.engine.statefile import inspect_state
    from rwkv_cli.store.named import named_states

    found = []
    try:
        states = named_states()
    except StorageError:  # no home
        return ()
    for name, path in states.items():
        try:
            if inspect_state(path).identity.weights == weights:
                found.append(name)
        except RwkvError:  # damaged, which `rwkv state ls` tells
            continue
    return tuple(found)


def _packings(model: Known) -> tuple[Cached, ...]:
    assert model.file is not None
    try:
        ours = {cached_path(model.file, dtype) for dtype in DTYPES}
        return tuple(cached for cached in cached_files() if cached.path in ours)
    except StorageError:  # no home
        return ()
