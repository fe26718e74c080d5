"""A process that saves and dies, and another that goes on, do what one alone does, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from oracle.models import tiny_model
from oracle.weights import VERSIONS

WHOLE, FIRST = 60, 23

_PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.generation import Generation
from rwkv_cli.traces import Randomness, saved_sampler
from rwkv_cli.sampling import Sampling

task = json.load(sys.stdin)
for path in task["models"]:
    model = load_model(Path(path), Strategy("cpu", None, task["engine"]), tokenizer="bytes")
    if task["from"]:
        state = model.load_state(Path(path).with_suffix(task["from"]))
        sampling, randomness = saved_sampler(state.attachments)
    else:
        _, state = model.prefill(list(b"Once upon a time"))
        sampling, randomness = Sampling(1.3, 0.9, banned=(0,)), Randomness(42, 3)
    generation = Generation(model, state, sampling, randomness, max_tokens=task["count"])
    text = b"".join(event.data for event in generation)
    generation.state.save(Path(path).with_suffix(task["to"]))
    print(json.dumps([text.hex(), list(generation.state.tokens)]), flush=True)
if task["die"]:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _run(
    models: list[Path], engine: str, count: int, *, start: str = "", to: str, die: bool = False
) -> list[list[object]]:
    """Generate with each model in a process of its own: text and tokens of each."""
    task = {
        "models": list(map(str, models)), "engine": engine, "count": count,
        "from": start, "to": to, "die": die,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        input=json.dumps(task),
        cwd=models[0].parent,  # away from the checkout: the installed package is what is tested
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == (-signal.SIGKILL if die else 0), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("continuation")
    return [tiny_model(folder, version).path for version in VERSIONS]


def test_save_kill_load_continue_equals_uninterrupted(models: list[Path], engine: str) -> None:
    whole = _run(models, engine, WHOLE, to=".whole")
    first = _run(models, engine, FIRST, to=".first", die=True)
    rest = _run(models, engine, WHOLE - FIRST, start=".first", to=".rest")
    assert len(whole) == len(first) == len(rest) == len(VERSIONS)
    for path, (text, tokens), (head, _), (tail, ended) in zip(
        models, whole, first, rest, strict=True
    ):
        assert len(tokens) == 16 + WHOLE
        assert (head + tail, ended) == (text, tokens), path.stem
        assert path.with_suffix(".rest").read_bytes() == path.with_suffix(".whole").read_bytes()
