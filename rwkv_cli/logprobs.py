"""How likely tokens were; knows no engine and no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a token was, before penalties and filters.

    Attributes:
        token: Its id.
        logprob: Natural logarithm of its probability.
        top: The likeliest tokens with theirs, likeliest first, the smaller id first among equals.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def scored(logits: NDArray[np.float32], token: int, count: int) -> Score:
    """Score a token.

    Args:
        logits: (V,) as the model gave them.
        token: The one that was drawn.
        count: How many of the likeliest are told with it.
    """
    shifted = logits.astype(np.float64) - float(logits.max())
    shifted -= np.log(np.exp(shifted).sum())
    likeliest: list[int] = []
    if count > 0:
        least = np.partition(shifted, -count)[-count] if count < len(shifted) else -np.inf
        likely = np.flatnonzero(shifted >= least)
        likeliest = likely[np.argsort(-shifted[likely], kind="stable")][:count].tolist()
    return Score(token, float(shifted[token]), tuple((t, float(shifted[t])) for t in likeliest))
