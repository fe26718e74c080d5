"""Draws of tokens by the CUDA kernel, and whether they are the host's."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from oracle.cuda_rows import Addresses, launch
from oracle.sampler import probabilities
from rwkv_cli.native.cuda.structures import constants, structures
from rwkv_cli.sampling import Sampling, draw_plainly

Floats = NDArray[np.float32]


def bits(tokens: Sequence[int] | NDArray[np.bool_], vocab: int) -> NDArray[np.uint32]:
    """A bit for each of some tokens."""
    chosen = np.zeros(-(-vocab // 32) * 32, np.bool_)
    chosen[np.flatnonzero(tokens) if isinstance(tokens, np.ndarray) else list(tokens)] = True
    return np.packbits(chosen, bitorder="little").view(np.uint32)


@dataclass
class Batch:
    """Sequences of which a token each is drawn.

    Attributes:
        logits: (sequences, vocab).
        samplings: How the token of each is drawn.
        seed: Of all.
        position: Tokens before the drawn one, of each.
        counts: Of each sequence, (vocab,); negative where there is none.
        seen: The bits of these, or nothing.
        banned: Bits of each, or nothing.
        uniform: What decides, in place of `seed` and `position`; then nothing is counted.
        uncounted: Bits.
        tokens: What was in memory before.
    """

    logits: Floats
    samplings: list[Sampling]
    seed: int = 0
    position: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: list[Floats | None] = field(default_factory=list)
    seen: list[NDArray[np.uint32]] = field(default_factory=list)
    banned: list[NDArray[np.uint32] | None] = field(default_factory=list)
    uniform: NDArray[np.float64] | None = None
    uncounted: NDArray[np.uint32] | None = None
    tokens: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        self.logits = np.ascontiguousarray(np.atleast_2d(self.logits), np.float32)
        count = len(self.logits)
        if not len(self.position):
            self.position = np.arange(count, dtype=np.int64)
        self.tokens = np.full(count, 7, np.int32)
        self.drawn = np.full(count, 99, np.int32)

    def settings(self) -> ctypes.Array[ctypes.Structure]:
        kind = structures()["DrawSettings"]
        rows = (kind * len(self.samplings))()
        for row, s in zip(rows, self.samplings, strict=True):
            row.temperature, row.min_p, row.top_p, row.top_k = (
                s.temperature,
                s.min_p,
                s.top_p,
                s.top_k,
            )
            row.temperature_first = s.order == "openai"
            row.presence, row.frequency = s.presence, s.frequency
            row.penalty_decay, row.seed, row.stream = s.penalty_decay, self.seed, 3
        return rows

    def draw(self, order: int | None = None) -> list[int]:
        """Draw; `order` is that of the host's threads."""
        launch(
            "sample", "SampleArguments", (len(self.logits), 1, 1), constants()["kSampleThreads"],
            constants()["kSampleShared"], order=order,
            logits=Addresses(row.copy() for row in self.logits),
            settings=np.frombuffer(self.settings(), np.uint8), uniform=self.uniform,
            position=self.position if self.uniform is None else None,
            counts=Addresses(self.counts) if self.counts else None,
            seen=Addresses(self.seen) if self.seen else None,
            banned=Addresses(self.banned) if self.banned else None,
            uncounted=self.uncounted, token=self.tokens, drawn=self.drawn,
            vocab=self.logits.shape[1],
        )  # fmt: skip
        return [int(token) for token in self.drawn]


def assert_drawn(logits: Floats, s: Sampling, u: float, ours: int) -> bool:
    """Ours is the host's token, or `u` lies at the border between the two; tells which. The least
    likely token that remains may be another one, where a sum just reaches top-p.
    """
    theirs = draw_plainly(logits, s, u)
    if ours != theirs:
        chances = probabilities(logits, s)
        edges = np.concatenate(([0], chances.cumsum()))
        first, second = sorted((ours, theirs))
        slack = 3e-6 + chances[chances > 0].min()
        assert edges[second] - slack <= u <= edges[first + 1] + slack, (s, u, ours, theirs)
    return ours == theirs
