"""What a run of `generate` tells about itself: a line of figures on stderr, or a JSON object."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rwkv_cli.render.progress import counted, speed
from rwkv_cli.render.streams import note
from rwkv_cli.render.style import dim
from rwkv_cli.text.fenced import first_block
from rwkv_cli.version import __version__

if TYPE_CHECKING:
    from rwkv_cli.engine.model import Model
    from rwkv_cli.generation import Generation
    from rwkv_cli.logprobs import Score

_WHY = {"end": "end of text", "stop": "stop text", "interrupt": "interrupted"}
_CUT = "cut by -N, a higher one allows more"


@dataclass(slots=True)
class Run:
    """What one run measured.

    Attributes:
        mode: "raw" or "chat".
        prompt_tokens: Tokens of the prompt.
        cached_tokens: How many of them did not have to be read.
        load_s: Seconds to load the model.
        prefill_s: Seconds to read the prompt.
        first_s: Seconds from the start of the command to the first token; None when there was none.
        decode_s: Seconds to generate.
    """

    mode: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    load_s: float = 0.0
    prefill_s: float = 0.0
    first_s: float | None = None
    decode_s: float = 0.0


def report(run: Run, generation: Generation, *, verbose: bool) -> None:
    """Print the figures on stderr, and say so when the answer was cut for its length."""
    why = _WHY.get(generation.finish or "", _CUT)
    count = generation.count
    parts = (
        [counted(count, "token"), speed(count, run.decode_s), why] if count else ["no tokens", why]
    )
    if run.cached_tokens:
        parts.insert(0, f"cached {run.cached_tokens:,} of {counted(run.prompt_tokens, 'token')}")
    if verbose:
        parts = [
            f"mode {run.mode}",
            f"load {run.load_s:.2f} s",
            f"read {counted(run.prompt_tokens - run.cached_tokens, 'token')} "
            f"in {run.prefill_s:.2f} s",
            f"position {generation.state.position}",
            f"seed {generation.randomness.seed}",
            *parts,
        ]
    note(dim(f"[{' · '.join(parts)}]"))


def report_one(number: int, generation: Generation) -> None:
    """Say on stderr which of several answers is next."""
    why = _WHY.get(generation.finish or "", _CUT)
    note(dim(f"[answer {number} · {counted(generation.count, 'token')} · {why}]"))


def report_several(run: Run, counts: list[int]) -> None:
    """Print the figures of several answers, which were generated together, on stderr."""
    tokens = sum(counts)
    parts = [
        counted(len(counts), "answer"),
        counted(tokens, "token"),
        speed(tokens, run.decode_s),
    ]
    if run.cached_tokens:
        parts.insert(0, f"cached {run.cached_tokens:,} of {counted(run.prompt_tokens, 'token')}")
    note(dim(f"[{' · '.join(parts)}]"))


def as_json(
    run: Run, model: Model, generation: Generation, text: bytes, *, extract: bool = False
) -> str:
    """Write answer and figures as one JSON object, in ASCII.

    Args:
        run: The figures.
        model: Who answered.
        generation: How.
        text: The answer.
        extract: Whether the code in it is a field as well, null where there is none.
    """
    answer = {
        **_beginning(run, model),
        **_said(model, generation, text, extract=extract),
        "usage": {
            **_read(run),
            "completion_tokens": generation.count,
            "position": generation.state.position,
        },
        "timing": _timing(run, generation.count),
        **_end(model, generation),
    }
    return json.dumps(answer)


def several_as_json(
    run: Run, model: Model, answers: list[tuple[Generation, bytes]], *, extract: bool = False
) -> str:
    """Write several answers to one prompt as one JSON object, in ASCII.

    Args:
        run: The figures.
        model: Who answered.
        answers: How each was generated, and what it is.
        extract: As of `as_json`.
    """
    counts = [generation.count for generation, _ in answers]
    answer = {
        **_beginning(run, model),
        "samples": [
            {
                **_said(model, generation, text, extract=extract),
                "completion_tokens": generation.count,
            }
            for generation, text in answers
        ],
        "usage": {**_read(run), "completion_tokens": sum(counts)},
        "timing": _timing(run, sum(counts)),
        **_end(model, answers[0][0]),
    }
    return json.dumps(answer)


def _beginning(run: Run, model: Model) -> dict[str, Any]:
    return {"model": model.name, "mode": run.mode}


def _said(model: Model, generation: Generation, text: bytes, *, extract: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"text": text.decode("utf-8", "replace")}
    if extract:
        said["code"] = _code(text)
    said["finish_reason"] = generation.finish
    if generation.logprobs is not None:
        said["logprobs"] = [_scored(model, score) for score in generation.scores]
    return said


def _scored(model: Model, score: Score) -> dict[str, Any]:
    def told(token: int, logprob: float) -> dict[str, Any]:
        text = model.tokenizer.token_bytes(token).decode("utf-8", "replace")
        return {"token": text, "id": token, "logprob": logprob}

    return {**told(score.token, score.logprob), "top": [told(*pair) for pair in score.top]}


def _read(run: Run) -> dict[str, int]:
    return {"prompt_tokens": run.prompt_tokens, "cached_tokens": run.cached_tokens}


def _timing(run: Run, count: int) -> dict[str, float | None]:
    return {
        "load_s": round(run.load_s, 4),
        "prefill_s": round(run.prefill_s, 4),
        "first_token_s": None if run.first_s is None else round(run.first_s, 4),
        "decode_s": round(run.decode_s, 4),
        "s_per_token": round(run.decode_s / count, 6) if count else None,
    }


def _end(model: Model, generation: Generation) -> dict[str, Any]:
    return {
        "seed": generation.randomness.seed,
        "sampler": generation.sampling.to_json(),
        "numerics": model.identity.numerics,
        "version": __version__,
    }


def _code(text: bytes) -> str | None:
    found = first_block(text)
    return None if found is None else found.decode("utf-8", "replace")
