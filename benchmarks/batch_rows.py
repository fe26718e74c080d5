"""The rows that batch.py asks for: the same ones in every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

ROWS = 1000
PREFIX = 2000  # tokens
# Each of these words, with the blank before it, is one token of the World vocabulary.
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "that",
    "it",
    "is",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
]


def rows_of(count: int) -> list[dict[str, Any]]:
    """Give rows of mixed lengths: prompts of 4 to 400 tokens, half of them below 40; answers of 8
    to 256, half of them below 64.
    """
    rng = np.random.default_rng(7)
    read = np.clip(40 * np.exp(rng.normal(0, 1, count)), 4, 400).astype(int)
    written = np.clip(64 * np.exp(rng.normal(0, 0.8, count)), 8, 256).astype(int)
    return [
        {"prompt": _text(rng, int(a)), "max_tokens": int(b)}
        for a, b in zip(read, written, strict=True)
    ]


def prefixed(count: int, *, shared: bool) -> list[dict[str, Any]]:
    """Give rows of a long prefix and a few words of their own, which come first when nothing is to
    be shared.
    """
    prefix, rng = _text(np.random.default_rng(8), PREFIX), np.random.default_rng(9)
    own = [_text(rng, 12) for _ in range(count)]
    return [
        {"prompt": prefix + words if shared else words + prefix, "max_tokens": 16} for words in own
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _text(rng: np.random.Generator, words: int) -> str:
    return "".join(f" {WORDS[i]}" for i in rng.integers(0, len(WORDS), words))
