"""Run this program's engine once on one thing and print what was measured, as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.strategy import Strategy

WARM = 16  # tokens until most rows of the mapped file have been touched once


def main() -> None:
    """Take the plan from argv as JSON: model, dtype, threads, what, tokens, batch, prompt."""
    plan = json.loads(sys.argv[1])
    path, strategy = Path(plan["model"]), Strategy("cpu", plan["dtype"], threads=plan["threads"])
    # Text is needed for greedy alone, and the vocabulary of RWKV-4 may not be here.
    model = load_model(path, strategy, tokenizer=None if plan["what"] == "greedy" else "bytes")
    print(json.dumps({"numerics": model.engine.numerics, **_MEASURES[plan["what"]](model, plan)}))


def _random(count: int) -> list[int]:
    return np.random.default_rng(1).integers(1, 50_000, count).tolist()


def _settle(model: Model) -> None:
    """Wait until the weights have moved to large pages: a start that is measured by itself."""
    moving = getattr(model.engine, "moving", None)
    if moving:
        moving.join()


def _decode(model: Model, plan: dict[str, Any]) -> dict[str, float]:
    tokens, state = _random(WARM + plan["tokens"]), model.zero_state()
    for token in tokens[:WARM]:
        model.advance([token], state)
    _settle(model)
    start = time.perf_counter()
    for token in tokens[WARM:]:
        model.advance([token], state)
    return {"rate": plan["tokens"] / (time.perf_counter() - start)}


def _batch(model: Model, plan: dict[str, Any]) -> dict[str, float]:
    size = plan["batch"]
    states = [model.zero_state() for _ in range(size)]
    rows = np.random.default_rng(1).integers(1, 50_000, (WARM + plan["tokens"], size)).tolist()
    for row in rows[:WARM]:
        model.engine.decode(row, states)
    _settle(model)
    start = time.perf_counter()
    for row in rows[WARM:]:
        model.engine.decode(row, states)
    return {"rate": size * plan["tokens"] / (time.perf_counter() - start)}


def _prefill(model: Model, plan: dict[str, Any]) -> dict[str, float]:
    tokens = _random(plan["tokens"])
    for _ in range(4):
        model.advance(tokens[:16], model.zero_state())
    _settle(model)
    state = model.zero_state()
    start = time.perf_counter()
    model.advance(tokens, state)
    return {"rate": len(tokens) / (time.perf_counter() - start)}


def _greedy(model: Model, plan: dict[str, Any]) -> dict[str, str]:
    state = model.zero_state()
    logits = model.advance(model.tokenizer.encode(plan["prompt"].encode()), state)
    text = b""
    for _ in range(plan["tokens"]):
        token = int(logits.argmax())
        text += model.tokenizer.token_bytes(token)
        logits = model.advance([token], state)
    return {"text": text.hex()}


_MEASURES = {"decode": _decode, "batch": _batch, "prefill": _prefill, "greedy": _greedy}

if __name__ == "__main__":
    main()
