"""What flows through a batch, as plain data: a row of the input, what it asks, what was answered.
Knows no engine and no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rwkv_cli.sampling import Sampling


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no answer.

    Attributes:
        code: Short and stable, for programs. Of reading: "bad_json", "bad_utf8", "bad_csv",
            "too_long". Of asking: "missing_field", "bad_value", "unsupported", "empty_prompt".
            Of running: "memory", "no_token", "state", "worker_lost".
        message: One sentence.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the input.

    Attributes:
        index: Its place among the rows of the input, from 0.
        fields: What it holds, in its order; empty when it could not be read.
        error: Why it could not be read.
    """

    index: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: RowError | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a row asks of a model.

    Attributes:
        index: The row.
        prompt: Exactly the bytes that are read; a chat format is part of them.
        sampling: How tokens are drawn.
        seed: Of its random numbers, below 2^53 so that every reader of JSON keeps it; sample i
            draws from stream i.
        max_tokens: Longest answer.
        stops: Byte strings that end an answer.
        chat: Whether it is a chat turn, whose answer begins with its first word.
        samples: How many answers are wanted.
        logprobs: How many of the likeliest tokens are told with each token; None for none at all.
        state: Name or path of a saved state to go on from.
    """

    index: int
    prompt: bytes
    sampling: Sampling
    seed: int
    max_tokens: int
    stops: tuple[bytes, ...] = ()
    chat: bool = False
    samples: int = 1
    logprobs: int | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How likely a drawn token was, before penalties and filters.

    Attributes:
        token: Its id.
        data: Its bytes.
        logprob: Natural logarithm of its probability.
        top: The likeliest tokens with theirs, likeliest first.
    """

    token: int
    data: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer.

    Attributes:
        text: Its bytes.
        finish: "end", "stop" or "length".
        tokens: How many were generated.
        scores: One for each token of the text, when they were asked for.
    """

    text: bytes
    finish: str
    tokens: int
    scores: tuple[TokenScore, ...] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        index: The row.
        seed: As of the request.
        prompt_tokens: Tokens of its prompt.
        samples: As many as were asked for; none when there is an error.
        error: Why there are none.
    """

    index: int
    seed: int
    prompt_tokens: int = 0
    samples: tuple[Sample, ...] = ()
    error: RowError | None = None
