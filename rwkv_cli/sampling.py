"""From logits to a token: penalties, filters, one draw. Knows no model, no text and no torch.

The order is the reference package's (penalties, softmax, top-p, top-k, then temperature), so
published settings mean what they meant; `order="openai"` applies the temperature before the
filters. A draw depends on (seed, stream, position) alone, so a resumed, retried or batched run
repeats itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from rwkv_cli.errors import RefusedError, UsageError
from rwkv_cli.native import sample as native
from rwkv_cli.philox import philox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32s = NDArray[np.float32]
    Float64s = NDArray[np.float64]

# Tokens whose text lies within this one are not counted again (reference package, utils.py):
# repeating digits and blanks is what numbers and tables are made of.
UNCOUNTED = b" \t0123456789"

_COLDEST = 1e-6  # colder than that, scores overflow, and only the likeliest token remains
_LEAST = np.finfo(np.float32).tiny  # a token this much less likely than the likeliest never remains

NOTHING = "no token can be drawn: all are banned, or the logits are not finite"

# What each number may be.
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 20),
    "min_p": (0.0, 1.0),
    "presence": (-10.0, 10.0),
    "frequency": (-10.0, 10.0),
    "penalty_decay": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: 0 takes the likeliest token; 1 draws from the model's own distribution.
        top_p: Keep the likeliest tokens that together reach this probability.
        top_k: Keep this many of the likeliest tokens; 0 keeps all.
        min_p: Keep tokens at least this fraction as likely as the likeliest.
        presence: Subtracted from the logit of every token generated before.
        frequency: Subtracted once more for each time it was generated.
        penalty_decay: Factor by which those counts fade with every token.
        order: "rwkv" (temperature last) or "openai" (temperature first).
        banned: Token ids never drawn.
    """

    temperature: float = 1.0
    top_p: float = 0.85
    top_k: int = 0
    min_p: float = 0.0
    presence: float = 0.2
    frequency: float = 0.2
    penalty_decay: float = 0.996
    order: str = "rwkv"
    banned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN does not, either
                flag = name.replace("_", "-")
                raise UsageError(f"{flag} is {value}; it must lie between {low:,} and {high:,}")
        if not isinstance(self.top_k, int):
            raise UsageError(f"top-k is {self.top_k}; it must be a whole number")
        if self.order not in ("rwkv", "openai"):
            raise UsageError(f"sampler-order is {self.order!r}; it must be rwkv or openai")

    def with_changes(self, **changes: Any) -> Sampling:
        """Give a copy with some settings replaced; those given as None stay."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})

    def to_json(self) -> dict[str, Any]:
        """Give the settings as plain JSON values."""
        return {**asdict(self), "banned": list(self.banned)}


# What the authors of each family of models recommend for chat.
PRESETS = {
    "pile": Sampling(1.0, 0.7, presence=0.4, frequency=0.4),
    "raven": Sampling(1.2, 0.5, presence=0.4, frequency=0.4),
    "world": Sampling(1.0, 0.3, presence=0.4, frequency=0.4),
    "g1": Sampling(1.0, 0.5, presence=0.5, frequency=0.1, penalty_decay=0.99),
    "demo": Sampling(1.0, 0.6, presence=0.0, frequency=0.0),
}


class Penalties:
    """Counts of the generated tokens, fading with each one; sparse, so a step costs what was
    generated.
    """

    __slots__ = ("_counts", "_ids", "_slots")

    def __init__(self, ids: Any = (), counts: Any = ()) -> None:
        self._slots = {int(token): slot for slot, token in enumerate(ids)}
        self._ids = np.fromiter(self._slots, np.uint32, len(self._slots))
        self._counts: Float32s = np.array(counts, dtype=np.float32)

    @property
    def ids(self) -> NDArray[np.uint32]:
        """Tokens counted so far, (n,) uint32, in the order they first came."""
        return self.present()[0].copy()

    @property
    def counts(self) -> Float32s:
        """How often each of `ids` was generated, faded, (n,) float32."""
        return self.present()[1].copy()

    def present(self) -> tuple[NDArray[np.uint32], Float32s]:
        """Give `ids` and `counts` without a copy: they are right until the next `record`."""
        return self._ids[: len(self._slots)], self._counts[: len(self._slots)]

    def copy(self) -> Penalties:
        """Give counts that go their own way."""
        return Penalties(self._slots, self.counts)

    def record(self, token: int, text: bytes, decay: float) -> None:
        """Fade all counts, then count a token."""
        slot = self._slots.setdefault(token, len(self._slots))
        if slot >= len(self._counts):
            room = max(64, len(self._counts))
            self._counts = np.concatenate((self._counts, np.zeros(room, np.float32)))
            self._ids = np.concatenate((self._ids, np.zeros(room, np.uint32)))
        self._ids[slot] = token
        self._counts *= np.float32(decay)
        if text not in UNCOUNTED:
            self._counts[slot] += 1

    def apply(self, logits: Float32s, sampling: Sampling) -> None:
        """Subtract the penalties from logits (V,), in place."""
        if self._slots and (sampling.presence or sampling.frequency):
            ids, counts = self.present()
            logits[ids] -= np.float32(sampling.presence) + counts * np.float32(sampling.frequency)


@dataclass(frozen=True, slots=True)
class Choice:
    """How one token is to be drawn from logits, which stay as they are.

    Attributes:
        sampling: The settings.
        u: The uniform number in [0, 1) of its place.
        penalties: What was generated so far.
        never: (n,) tokens that are never drawn.
    """

    sampling: Sampling
    u: float
    penalties: Penalties
    never: NDArray[np.intp]


def choose(logits: Float32s, choice: Choice) -> int:
    """Draw a token from logits (V,): its id, -1 where none can be drawn."""
    scores = logits.copy()
    scores[choice.never] = -np.inf
    choice.penalties.apply(scores, choice.sampling)
    try:
        return draw(scores, choice.sampling, choice.u)
    except RefusedError:
        return -1


def uniform(seed: int, stream: int, position: int) -> float:
    """Draw the number in [0, 1) that belongs to a place: counter-based, with no state to carry
    (Philox-4x64).

    Args:
        seed: Below 2^64.
        stream: Which of several answers from the same place, below 2^64.
        position: Tokens before the drawn one.
    """
    key = (seed & (2**64 - 1), stream & (2**64 - 1))
    return (philox(key, position) >> 11) * 2.0**-53


def draw(logits: Float32s, sampling: Sampling, u: float) -> int:
    """Choose a token, with the C++ library where it is there.

    It draws what `draw_plainly` draws, unless rounding decides: exponentials differ in their last
    bit, and sums over a vocabulary in their seventh digit.

    Args:
        logits: (V,) float32, penalties and bans already applied (a banned token is -inf).
        sampling: The filters.
        u: A uniform number in [0, 1).

    Raises:
        RefusedError: Every token is banned, or the logits are not finite.
    """
    if not native.can_draw(logits):
        return draw_plainly(logits, sampling, u)
    token = native.draw(
        logits,
        u,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        temperature_first=sampling.order == "openai",
    )
    if token is None:
        raise RefusedError(NOTHING)
    return token


def draw_plainly(logits: Float32s, sampling: Sampling, u: float) -> int:
    """Choose a token in numpy: what `draw` means, in its own words, and its fallback."""
    top = logits.max()
    if not isfinite(top):
        raise RefusedError(NOTHING)
    if sampling.temperature < _COLDEST:
        return int(logits.argmax())
    scores = logits - top
    if sampling.order == "openai":
        scores /= np.float32(sampling.temperature)
    weights = np.exp(scores)
    keep = _kept(weights, sampling)
    if sampling.order == "rwkv" and sampling.temperature != 1:
        scores /= np.float32(sampling.temperature)
        np.exp(scores, out=weights)  # in place: fresh memory would cost more than the arithmetic
    weights *= keep
    totals = _row_sums(weights)
    index = _reach(weights, totals, u * float(totals.sum()))
    return index if keep[index] else int(np.flatnonzero(keep[:index])[-1])  # a sum was rounded


def _kept(weights: Float32s, sampling: Sampling) -> NDArray[np.bool_]:
    """Apply top-p, top-k and min-p to weights (V,), the largest being 1: which tokens remain."""
    ranked = np.sort(weights)[::-1]
    cutoff = max(_LEAST, np.float32(sampling.min_p))
    if sampling.top_p < 1:
        totals = _row_sums(ranked)
        target = sampling.top_p * float(totals.sum()) * (1 - 1e-9)
        cutoff = max(cutoff, ranked[_reach(ranked, totals, target)])
    keep: NDArray[np.bool_] = weights >= cutoff
    if 0 < sampling.top_k < np.count_nonzero(keep):
        cutoff = ranked[sampling.top_k - 1]
        keep = weights > cutoff
        equal = np.flatnonzero(weights == cutoff)  # among equals the smaller ids stay
        keep[equal[: sampling.top_k - np.count_nonzero(keep)]] = True
    return keep


_ROW = 256  # sums are taken in two levels: a running sum over a vocabulary costs too much


def _row_sums(values: Float32s) -> Float64s:
    """Sum each stretch of `_ROW` values."""
    return np.add.reduceat(values, np.arange(0, len(values), _ROW)).astype(np.float64)


def _reach(values: Float32s, totals: Float64s, target: float) -> int:
    """Find the first index at which the running sum of values exceeds a target."""
    running = totals.cumsum()
    row = min(int(np.searchsorted(running, target, side="right")), len(totals) - 1)
    start = row * _ROW
    inside = values[start : start + _ROW].cumsum(dtype=np.float64)
    before = float(running[row] - totals[row])
    offset = int(np.searchsorted(inside, target - before, side="right"))
    return min(start + offset, len(values) - 1)
