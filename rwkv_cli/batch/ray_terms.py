"""What a worker of a Ray cluster must have loaded to be of use: what the others have."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rwkv_cli.batch.ray_places import Place
from rwkv_cli.errors import (
    LimitError,
    MismatchError,
    NotFoundError,
    RefusedError,
    RwkvError,
    StorageError,
    UsageError,
)
from rwkv_cli.version import __version__

_KINDS: dict[int, type[RwkvError]] = {
    kind.exit_code: kind
    for kind in (UsageError, NotFoundError, MismatchError, StorageError, RefusedError, LimitError)
}

_PARTS = {
    "arch": "a model of the sizes",
    "weights": "the weights",
    "tokenizer": "the tokenizer",
    "numerics": "the arithmetic",
}
_REMEDIES = {"numerics": "say --device and --dtype as they were at first, or choose another -o"}


def trouble(told: Mapping[str, Any], place: Place) -> RwkvError | None:
    """Say why a worker is of no use."""
    if told["version"] != __version__:
        what = f"the worker on {place.name} has rwkv {told['version']}, not {__version__}"
        return MismatchError(what, hint=f"pip install rwkv-cli=={__version__} there")
    if "error" in told:
        what = f"the worker on {place.name} cannot load the model: {told['error']}"
        return _KINDS.get(told["exit_code"], StorageError)(what, hint=told["hint"])
    return None


def difference(
    identity: Mapping[str, str], expected: Mapping[str, str], place: Place
) -> RwkvError | None:
    """Say in what a worker's model differs from what is expected."""
    for part, wanted in expected.items():
        if identity.get(part) != wanted:
            return MismatchError(
                f"the worker on {place.name} has {_PARTS[part]} {identity.get(part)}, not "
                f"{wanted}, and would write other texts",
                hint=_REMEDIES.get(part, "docs/ray.md says what must be equal on all machines"),
            )
    return None


def commonest(identities: Iterable[Mapping[str, str]]) -> Mapping[str, str] | None:
    """Give what most workers have loaded, whoever was first; None where there are no workers."""
    counts = Counter(json.dumps(one, sort_keys=True) for one in identities)
    if not counts:
        return None
    chosen: Mapping[str, str] = json.loads(min(counts, key=lambda text: (-counts[text], text)))
    return chosen
