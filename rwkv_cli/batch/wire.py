"""Requests and answers as JSON, for carrying them between machines: what arrives equals what left,
bit for bit. No object of ours is ever pickled.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import asdict
from typing import Any

from rwkv_cli.batch.row import Answer, Request, RowError, Sample, TokenScore
from rwkv_cli.sampling import Sampling


def packed_request(request: Request) -> bytes:
    """Write a request as JSON."""
    return _packed(
        {
            "index": request.index,
            "prompt": _text(request.prompt),
            "sampling": request.sampling.to_json(),
            "seed": request.seed,
            "max_tokens": request.max_tokens,
            "stops": [_text(stop) for stop in request.stops],
            "chat": request.chat,
            "samples": request.samples,
            "logprobs": request.logprobs,
            "state": request.state,
        }
    )


def unpacked_request(data: bytes) -> Request:
    """Read what `packed_request` wrote."""
    fields = json.loads(data)
    drawn = fields.pop("sampling")
    fields["sampling"] = Sampling(**{**drawn, "banned": tuple(drawn["banned"])})
    fields["prompt"] = b64decode(fields["prompt"])
    fields["stops"] = tuple(b64decode(stop) for stop in fields["stops"])
    return Request(**fields)


def packed_answer(answer: Answer) -> bytes:
    """Write an answer as JSON."""
    return _packed(
        {
            "index": answer.index,
            "seed": answer.seed,
            "prompt_tokens": answer.prompt_tokens,
            "samples": [_sample(sample) for sample in answer.samples],
            "error": asdict(answer.error) if answer.error else None,
        }
    )


def unpacked_answer(data: bytes) -> Answer:
    """Read what `packed_answer` wrote."""
    fields = json.loads(data)
    fields["samples"] = tuple(_unpacked_sample(sample) for sample in fields["samples"])
    fields["error"] = RowError(**fields["error"]) if fields["error"] else None
    return Answer(**fields)


def _sample(sample: Sample) -> dict[str, Any]:
    scores = sample.scores
    return {
        "text": _text(sample.text),
        "finish": sample.finish,
        "tokens": sample.tokens,
        "scores": None if scores is None else [_score(score) for score in scores],
    }


def _unpacked_sample(fields: dict[str, Any]) -> Sample:
    scores = fields["scores"]
    return Sample(
        b64decode(fields["text"]),
        fields["finish"],
        fields["tokens"],
        None if scores is None else tuple(_unpacked_score(score) for score in scores),
    )


def _score(score: TokenScore) -> list[Any]:
    top = [[token, _text(data), logprob] for token, data, logprob in score.top]
    return [score.token, _text(score.data), score.logprob, top]


def _unpacked_score(fields: list[Any]) -> TokenScore:
    token, data, logprob, top = fields
    likeliest = tuple((one, b64decode(text), likely) for one, text, likely in top)
    return TokenScore(token, b64decode(data), logprob, likeliest)


def _text(data: bytes) -> str:
    """Write bytes, which need not be UTF-8, as characters of JSON."""
    return b64encode(data).decode("ascii")


def _packed(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii")
