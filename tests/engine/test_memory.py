"""Memory: no weights held twice, and no token that leaves anything behind."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle.models import random_tokens, tiny_model
from oracle.weights import Shape, random_model
from safetensors.torch import save_file

from rwkv_cli.engine.memory import Machine
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.plan import plan_for

MIB = 1 << 20
SLACK = 100 * MIB  # code and buffers; far less than the weights, so a second copy cannot hide

_MEASURE = """
import sys
engine, path, dtype = sys.argv[1:]
if engine == "torch":
    import torch
    torch.set_num_threads(1)
if path:
    from pathlib import Path
    from rwkv_cli.engine.load import load_model
    from rwkv_cli.engine.strategy import Strategy, parse_strategy
    strategy = Strategy("cpu", dtype or None, engine, 1)
    if " " in dtype:
        strategy = parse_strategy(dtype)
    model = load_model(Path(path), strategy, tokenizer="bytes")
    if engine == "native":
        for _ in range(6):  # enough for it to move its weights to large pages
            model.prefill([1, 2, 3])
    if getattr(model.engine, "moving", None):
        model.engine.moving.join()
    model.prefill([1, 2, 3])
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) << 10)
"""

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="peak memory is read from /proc"
)


def _peak(engine: str, path: str = "", dtype: str = "") -> int:
    """Peak resident bytes of a process that loads a model and runs it."""
    run = [sys.executable, "-W", "ignore", "-c", _MEASURE, engine, path, dtype]
    # Away from the checkout: the installed package is what is tested.
    away = tempfile.gettempdir()
    done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=120, cwd=away)
    return int(done.stdout)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """About 200 MB of bfloat16: one random layer, again and again."""
    shape = Shape(layers=2, heads=16, size=64, ffn=4096, vocab=256, rank=32)
    half = {
        name: torch.from_numpy(array).to(torch.bfloat16)
        for name, array in random_model("v7", shape).items()
    }
    for layer in range(2, 8):
        names = [name for name in half if name.startswith("blocks.1.")]
        half |= {name.replace(".1.", f".{layer}.", 1): half[name].clone() for name in names}
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    save_file(half, path)
    yield path
    path.unlink()


@cache
def _bare(engine: str) -> int:
    """Peak of a process that only imports what the engine needs."""
    return _peak(engine)


@needs_proc
@pytest.mark.parametrize(("dtype", "factor"), [("", 1), ("fp32", 2)])
def test_weights_are_never_held_twice(large: Path, engine: str, dtype: str, factor: int) -> None:
    weights = large.stat().st_size * factor
    assert weights > 190 * MIB * factor
    assert _peak(engine, str(large), dtype) - _bare(engine) < weights + SLACK


@needs_proc
@pytest.mark.parametrize("strategy", ["cpu fp16 *3 -> cpu bf16", "cpu fp32 *4 -> cpu fp16i8"])
def test_a_split_model_takes_the_memory_of_its_plan(large: Path, strategy: str) -> None:
    planned = plan_for(open_model(large), strategy, machine=Machine()).total
    assert planned > 100 * MIB
    assert _peak("torch", str(large), strategy) - _bare("torch") < planned + SLACK


@needs_proc
def test_memory_is_flat_over_10000_tokens(tmp_path: Path, engine: str) -> None:
    shape = Shape(layers=1, heads=2, size=16, ffn=64, vocab=2048, rank=4)
    model = tiny_model(tmp_path, "v4", shape, engine=engine)
    state, tokens = model.zero_state(), random_tokens(model, 10_000)
    resident = []
    for position, token in enumerate(tokens):
        model.engine.decode([token], [state])
        if position in (1_000, 9_999):
            resident.append(_resident())
    assert state.tokens == tokens
    assert state.nbytes == model.zero_state().nbytes
    assert resident[1] - resident[0] < 4 * MIB  # one kept row of logits a token would make 70


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_prefill_of_any_length_takes_the_memory_of_a_chunk(model: Model) -> None:
    chunk = model.engine.chunk
    model.advance(random_tokens(model, 4 * chunk), model.zero_state())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokens = np.asarray(random_tokens(model, 60 * chunk))
    model.advance(tokens, model.zero_state())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
