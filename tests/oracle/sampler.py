"""Sampling as the reference package defines it, slowly, in float64 and plain loops."""

from __future__ import annotations

import numpy as np

from rwkv_cli.sampling import Sampling

Array = np.ndarray


def probabilities(logits: Array, s: Sampling) -> Array:
    """Give the chance of each token, (V,) float64: penalties are already in the logits."""
    scores = logits.astype(np.float64)
    if s.order == "openai":
        scores = scores / s.temperature
    p = _softmax(scores)
    keep = _nucleus(p, s.top_p)
    keep &= p >= s.min_p * p.max()
    if s.top_k:
        keep &= np.isin(np.arange(len(p)), _likeliest(p)[: s.top_k])
    p = np.where(keep, p, 0)
    if s.order == "rwkv":
        p = p ** (1 / s.temperature)
    return p / p.sum()


def _softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max())
    return e / e.sum()


def _likeliest(p: Array) -> list[int]:
    """Tokens from the likeliest down; among equals the smaller id first."""
    return sorted(range(len(p)), key=lambda token: (-p[token], token))


def _nucleus(p: Array, top_p: float) -> Array:
    """Keep all tokens as likely as the one at which the sum of the likeliest reaches top_p."""
    total = 0.0
    for token in _likeliest(p):
        total += p[token]
        if total >= top_p:
            return p >= p[token]
    return np.ones(len(p), dtype=bool)


class Occurrences:
    """The reference's repetition penalties: a dictionary, walked through at every token."""

    def __init__(self, s: Sampling) -> None:
        self.settings = s
        self.counts: dict[int, float] = {}

    def apply(self, logits: Array) -> Array:
        """Give the penalized logits, float64."""
        out = logits.astype(np.float64)
        for token, count in self.counts.items():
            out[token] -= self.settings.presence + count * self.settings.frequency
        return out

    def record(self, token: int, text: str) -> None:
        """Count a token that was drawn."""
        for known in self.counts:
            self.counts[known] *= self.settings.penalty_decay
        self.counts[token] = self.counts.get(token, 0) + (0 if text in " \t0123456789" else 1)
