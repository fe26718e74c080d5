"""What is to be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured with each engine; every combination is.

    Attributes:
        prompts: Lengths of prefills, in tokens.
        lengths: Numbers of tokens to generate.
        depths: Numbers of tokens that were read before; each is read once, saved and restored.
        batches: Numbers of sequences side by side, for generating.
        repeats: How often.
        state: A state file to begin at, as one more depth.
        text: What is read instead of our own text.
    """

    prompts: tuple[int, ...] = (512,)
    lengths: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0, 4096)
    batches: tuple[int, ...] = (1,)
    repeats: int = 5
    state: Path | None = None
    text: bytes = b""
