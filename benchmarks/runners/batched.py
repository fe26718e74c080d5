"""Decode many sequences side by side with this program's engine: seconds of feeding and of drawing,
step by step, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.sampling import Choice, Penalties, Sampling, uniform

SAMPLING = Sampling(1.0, 0.85, presence=0.4, frequency=0.4)


def main() -> None:
    """Take the plan from argv as JSON: model, dtype, threads, width, steps."""
    plan = json.loads(sys.argv[1])
    strategy = Strategy("cpu", plan["dtype"], threads=plan["threads"])
    model = load_model(Path(plan["model"]), strategy, tokenizer="bytes")
    print(json.dumps({"numerics": model.engine.numerics, **_measure(model, plan)}))


def _measure(model: Any, plan: dict[str, Any]) -> dict[str, list[float]]:
    engine, width = model.engine, plan["width"]
    states = [model.zero_state() for _ in range(width)]
    counted = [Penalties() for _ in range(width)]
    tokens = np.random.default_rng(1).integers(1, 50_000, width).tolist()
    never, wanted = np.zeros(1, np.intp), [True] * width
    times: dict[str, list[float]] = {"feed": [], "choose": []}
    for step in range(-4, plan["steps"]):
        if step == 0 and engine.moving:
            engine.moving.join()  # until the weights lie on large pages
        start = time.perf_counter()
        engine.feed([[token] for token in tokens], states, wanted)
        fed = time.perf_counter()
        choices = [
            Choice(SAMPLING, uniform(1, row, step + 4), counted[row], never) for row in range(width)
        ]
        tokens = engine.choose(states, choices)
        chosen = time.perf_counter()
        for row, token in enumerate(tokens):
            counted[row].record(token, b"word", SAMPLING.penalty_decay)
        if step >= 0:
            times["feed"].append(fed - start)
            times["choose"].append(chosen - fed)
    return times


if __name__ == "__main__":
    main()
