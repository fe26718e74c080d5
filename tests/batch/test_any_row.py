"""Rows made of anything: each is a request that can be run, or an error that can be written."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from rwkv_cli.batch.asking import PROMPTS, Asking, Defaults
from rwkv_cli.batch.jsonline import parse_object
from rwkv_cli.batch.row import Request, Row, RowError
from rwkv_cli.batch.template import Template
from rwkv_cli.batch.values import KEYS
from rwkv_cli.sampling import PRESETS
from rwkv_cli.text.templates import load_template

NAMES = [*PROMPTS, *KEYS, "custom_id", "body", "url", "method", "role", "content", "type", "tools"]
PLAIN = [None, True, False, 0, 1, -1, 5, 0.5, 2**60, -1e300, "", "a", "off", "user", "assistant"]


def anything(rng: random.Random, depth: int = 0) -> Any:
    """Make a value of JSON, often one that makes sense."""
    kind = rng.randrange(10)
    if kind == 0 and depth < 3:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind == 1 and depth < 3:
        names = rng.choices(NAMES, k=rng.randrange(3))
        return {name: anything(rng, depth + 1) for name in names}
    if kind == 2:
        return [{"role": rng.choice(PLAIN[-3:]), "content": "x"} for _ in range(rng.randrange(4))]
    return rng.choice(PLAIN)


@pytest.mark.parametrize("kind", ["jsonl", "openai", "csv", "template"])
def test_any_row_is_a_request_or_an_error(kind: str, tries: int) -> None:
    rng = random.Random(1)
    template = Template("{prompt}") if kind == "template" else None
    defaults = Defaults(PRESETS["g1"], 1, load_template("g1"), template=template)
    asking = Asking(defaults, "jsonl" if template else kind)
    counts = dict.fromkeys((Request, RowError), 0)
    for index in range(tries):
        fields = {"prompt": "p"} if rng.randrange(2) else {}
        for name in rng.choices(NAMES, k=rng.randrange(3)):
            fields[name] = anything(rng)
        if kind == "openai":
            fields = {"custom_id": "1", "body": fields}
        if kind == "csv":
            fields = {name: str(value) for name, value in fields.items()}
        read = parse_object(json.dumps(fields).encode())
        assert read == fields
        found = asking(Row(index, fields))
        counts[type(found)] += 1
        if isinstance(found, RowError):
            assert len(found.message.encode()) < 300
        else:
            assert found.prompt or found.state
            assert 0 <= found.seed < 2**53
            assert found.max_tokens > 0
            assert b"" not in found.stops
    assert min(counts.values()) > tries // 20
