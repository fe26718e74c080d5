"""A row and what came of it, as one line of the output: JSON in UTF-8 that every reader takes.

A line begins with its row's number, and an error comes right behind it, so that a run that goes on
reads a million lines without parsing them (`rowfile.py`). Nothing in a line depends on when or how
fast it was made: the same rows give the same bytes.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from rwkv_cli.batch.row import Answer, Row, RowError, Sample, TokenScore

RESULTS = (
    "index", "error", "text", "samples", "finish_reason", "logprobs", "usage", "seed",
)  # fmt: skip
_RESULTS = frozenset(RESULTS)

_FINISHES = {"end": "stop", "stop": "stop", "length": "length"}  # ours to OpenAI's

# JSON allows these as they are, but many readers take each for the end of a line.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}

Line = Callable[[Row, Answer], bytes]

# How a line of each layout begins: its row's number, and something in the second group if the row
# failed.
HEADS = {
    "jsonl": re.compile(rb'\{"index":(0|[1-9][0-9]{0,15})(?:(,"error":)|[,}])'),
    "openai": re.compile(
        rb'\{"id":"row-(0|[1-9][0-9]{0,15})","custom_id":'
        rb'(?:null|"[^"\\]*(?:\\.[^"\\]*)*"),"response":(?:(null)|\{)'
    ),
}


def line_maker(layout: str, model: str) -> Line:
    """Give the function that makes lines.

    Args:
        layout: "jsonl": the row's own fields and the results; "openai": a line of OpenAI's batch
            output, whose `id` holds the number.
        model: What the model is called, for "openai".
    """
    if layout == "jsonl":
        return _jsonl
    return lambda row, answer: _openai(row, answer, model)


def kept_name(name: str, fields: Mapping[str, Any]) -> str:
    """Give the name under which a field of the input is in the output: its own, or `input_NAME`
    where a result is called so, whether this run has that result or not.
    """
    if name not in _RESULTS:
        return name
    kept = f"input_{name}"
    while kept in fields:
        kept = f"input_{kept}"
    return kept


def _jsonl(row: Row, answer: Answer) -> bytes:
    error = answer.error or row.error
    line: dict[str, Any] = {"index": row.index}
    if error:
        line["error"] = _error(error)
    line.update((kept_name(name, row.fields), value) for name, value in row.fields.items())
    if not error:
        samples = [_result(sample) for sample in answer.samples]
        line.update(samples[0] if len(samples) == 1 else {"samples": samples})
        line["usage"] = _usage(answer)
        line["seed"] = answer.seed
    return _encoded(line)


def _result(sample: Sample) -> dict[str, Any]:
    made: dict[str, Any] = {"text": _text(sample.text), "finish_reason": sample.finish}
    if sample.scores is not None:
        made["logprobs"] = [_score(score) for score in sample.scores]
    return made


def _score(score: TokenScore) -> dict[str, Any]:
    top = [{"token": _text(d), "id": token, "logprob": p} for token, d, p in score.top]
    found = {"token": _text(score.data), "id": score.token, "logprob": score.logprob}
    return {**found, "top": top}


def _usage(answer: Answer) -> dict[str, int]:
    made = sum(sample.tokens for sample in answer.samples)
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": made}


def _error(error: RowError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


def _openai(row: Row, answer: Answer, model: str) -> bytes:
    """A line as OpenAI's batches give them; source: "Batch API", object "request output"."""
    error = answer.error or row.error
    name, asked = f"row-{row.index}", row.fields.get("custom_id")
    response = None
    if not error:
        body = _body(row, answer, name, model)
        response = {"status_code": 200, "request_id": name, "body": body}
    line = {
        "id": name,
        "custom_id": asked if asked is None or isinstance(asked, str) else json.dumps(asked),
        "response": response,
        "error": _error(error) if error else None,
    }
    return _encoded(line)


def _body(row: Row, answer: Answer, name: str, model: str) -> dict[str, Any]:
    """What the endpoint answers. `created` is always 0: a time would make two runs differ, and
    readers insist on a number.
    """
    body = row.fields.get("body")
    chat = isinstance(body, Mapping) and "messages" in body
    choice = _chat_choice if chat else _text_choice
    usage = _usage(answer)
    return {
        "id": name,
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": model,
        "choices": [choice(number, sample) for number, sample in enumerate(answer.samples)],
        "usage": {**usage, "total_tokens": sum(usage.values())},
        "seed": answer.seed,
    }


def _chat_choice(number: int, sample: Sample) -> dict[str, Any]:
    scores = None
    if sample.scores is not None:
        scores = {"content": [_chat_score(score) for score in sample.scores]}
    return {
        "index": number,
        "message": {"role": "assistant", "content": _text(sample.text)},
        "logprobs": scores,
        "finish_reason": _FINISHES[sample.finish],
    }


def _chat_score(score: TokenScore) -> dict[str, Any]:
    def told(data: bytes, logprob: float) -> dict[str, Any]:
        return {"token": _text(data), "logprob": logprob, "bytes": list(data)}

    top = [told(data, logprob) for _, data, logprob in score.top]
    return {**told(score.data, score.logprob), "top_logprobs": top}


def _text_choice(number: int, sample: Sample) -> dict[str, Any]:
    scores = None
    if sample.scores is not None:
        tokens = [_text(score.data) for score in sample.scores]
        scores = {
            "tokens": tokens,
            "token_logprobs": [score.logprob for score in sample.scores],
            "top_logprobs": [{_text(d): p for _, d, p in s.top} for s in sample.scores],
            "text_offset": list(itertools.accumulate(map(len, tokens), initial=0))[:-1],
        }
    return {
        "index": number,
        "text": _text(sample.text),
        "logprobs": scores,
        "finish_reason": _FINISHES[sample.finish],
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _encoded(line: Mapping[str, Any]) -> bytes:
    """One line of JSON. What JSON has no word for becomes null (infinities, which a number such as
    1e999 is read as) or U+FFFD (half of a surrogate pair).
    """
    try:
        text = _dumped(line)
    except ValueError:
        text = _dumped(_finite(line))
    for char, escape in _LINE_ENDS.items():
        text = text.replace(char, escape)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.encode() + b"\n"


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
