"""What a generation leaves with a state so that a later one goes on as if never interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rwkv_cli.engine.state import Attachments
from rwkv_cli.errors import UsageError
from rwkv_cli.sampling import UNCOUNTED, Penalties, Sampling
from rwkv_cli.text.detokenize import StreamDecoder
from rwkv_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rwkv_cli.engine.model import Model


@dataclass(frozen=True, slots=True)
class Randomness:
    """Where random numbers come from: they depend on this and on the position alone.

    Attributes:
        seed: Chosen once for a run.
        stream: Which of several answers from the same place.
    """

    seed: int
    stream: int = 0


def uncounted_tokens(tokenizer: Tokenizer, vocab: int) -> NDArray[np.intp]:
    """List the tokens whose repetition is not penalized, (n,)."""
    found = [t for t in range(vocab) if tokenizer.token_bytes(t) in UNCOUNTED]
    return np.array(found, dtype=np.intp)


def repeated(
    model: Model, start: Attachments, replies: Iterable[tuple[Sequence[int], str]]
) -> Attachments:
    """Make what generations leave with a state, from their tokens alone.

    Args:
        model: Whose tokens they are.
        start: What the state had before the first.
        replies: What each generation fed, in order, and the `sampler` it left.

    Returns:
        The attachments after the last of them.
    """
    penalties = Penalties(start.penalty_ids, start.penalty_counts)
    sampler, tail = start.sampler, start.tail
    for tokens, made_by in replies:
        sampler = made_by or sampler
        saved = saved_sampler(Attachments(sampler=made_by))
        pieces = [model.tokenizer.token_bytes(token) for token in tokens]
        tail = incomplete(b"".join(pieces))
        for token, data in zip(tokens, pieces, strict=True):
            if saved:
                penalties.record(token, data, saved[0].penalty_decay)
    return Attachments(sampler, penalties.ids, penalties.counts, tail=tail)


def sampler_text(sampling: Sampling, place: Randomness) -> str:
    """Write down how tokens are drawn; `saved_sampler` reads it back."""
    saved = {"sampling": sampling.to_json(), "seed": place.seed, "stream": place.stream}
    return json.dumps(saved, sort_keys=True)


def saved_sampler(attachments: Attachments) -> tuple[Sampling, Randomness] | None:
    """Read back the settings a state was generated with; None when it has none that make sense."""
    try:
        saved = json.loads(attachments.sampler)
        banned = tuple(int(token) for token in saved["sampling"]["banned"])
        sampling = Sampling(**{**saved["sampling"], "banned": banned})
        return sampling, Randomness(int(saved["seed"]), int(saved["stream"]))
    except (ArithmeticError, ValueError, KeyError, TypeError, RecursionError, UsageError):
        return None


def incomplete(data: bytes) -> bytes:
    """Give the bytes at the end that begin a character but do not complete it."""
    decoder = StreamDecoder()
    decoder.feed(data)
    return decoder.pending
