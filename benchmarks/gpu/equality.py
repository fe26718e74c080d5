"""Whether the card computes what the reference engine computes, on small random models of every
version and precision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu.cards import Cards
from gpu.passes import copied, plan
from gpu.record import Unit, Values
from rwkv_cli.arch.spec import get_arch, known_archs
from rwkv_cli.engine.cuda.engine import CudaEngine
from rwkv_cli.engine.cuda.selftest import _unpacked, random_model
from rwkv_cli.engine.cuda.weights import DTYPES, load_weights
from rwkv_cli.engine.load import load_model
from rwkv_cli.engine.modelfile import ModelFile
from rwkv_cli.engine.protocol import Engine
from rwkv_cli.engine.strategy import Strategy
from rwkv_cli.engine.torch_engine import TorchEngine
from rwkv_cli.engine.torch_weights import load_stack
from rwkv_cli.native.pool import Pool
from rwkv_cli.sampling import Sampling

GREEDY = 64
_HEAD = 64
_PROMPT = 85  # chunks of 64, 16 and 4, and one token that is decoded


def units(cards: Cards) -> list[Unit]:
    """List the part's units: every version in fp16 first."""
    pairs = [(version, dtype) for dtype in ("fp16", "int8", "int4", "fp32", "bf16")
             for version in known_archs()]  # fmt: skip
    return [Unit(f"{version} {dtype}", _bound(cards, version, dtype)) for version, dtype in pairs]


def _bound(cards: Cards, version: str, dtype: str) -> Callable[[], Values]:
    return lambda: compared(cards, version, dtype)


def compared(cards: Cards, version: str, dtype: str, size: int = _HEAD) -> Values:
    """Compare the engines on a model; distances are norm(a - b) / norm(b) of logits."""
    file = random_model(get_arch(version), size)
    engine = card_engine(cards, file, dtype)
    reference = torch_engine(cards.place, file, dtype)
    prompt = [int(t) for t in np.random.default_rng(2).integers(1, file.dims.vocab, _PROMPT)]
    yield "greedy", greedy_pair(engine, reference, prompt)
    yield "decode against prefill", decoded_and_read(engine, prompt)
    yield "batches are singles", batches(engine, prompt)
    yield "drawn on the card", drawn(engine, prompt)
    if cards.place.type == "cuda":
        yield "programmatic, same bits", programmatic(cards, engine, prompt)
    if dtype in ("fp32", "fp16"):
        yield "moved to the CPU and back", moved(file, engine, dtype, prompt)


def card_engine(cards: Cards, file: ModelFile, dtype: str) -> CudaEngine:
    """Load a model onto the card."""
    pool = None if dtype in DTYPES else Pool(1)
    return CudaEngine(cards.open(dtype), load_weights(file, dtype, cards.place, pool))


def torch_engine(place: torch.device, file: ModelFile, dtype: str) -> TorchEngine:
    """Load the reference with the very numbers that the kernels multiply with."""
    if dtype not in DTYPES:
        file, dtype = _unpacked(file, dtype), "fp32"
    stack = load_stack(file.checkpoint, file.arch, file.dims, dtype, str(place))
    return TorchEngine(stack, file.arch, file.dims, str(place))


def distance(a: Any, b: Any) -> float:
    """Give the relative distance; NaN where one is."""
    return float(f"{np.linalg.norm(a - b) / np.linalg.norm(b):.3g}")


def greedy_pair(engine: Engine, reference: Engine, prompt: Sequence[int]) -> dict[str, Any]:
    """Follow the reference's likeliest tokens with both, and see where they disagree."""
    states = engine.zero_state(), reference.zero_state()
    ours, theirs = (e.prefill(prompt, s) for e, s in zip((engine, reference), states, strict=True))
    found: dict[str, Any] = {"prefill distance": distance(ours, theirs)}
    same, worst = 0, 0.0
    for _ in range(GREEDY):
        same += int(ours.argmax() == theirs.argmax())
        token = int(theirs.argmax())
        ours, theirs = (
            engine.decode([token], [states[0]])[0],
            reference.decode([token], [states[1]])[0],
        )
        worst = max(worst, distance(ours, theirs))
    return found | {"same tokens": f"{same} of {GREEDY}", "worst distance": worst}


def decoded_and_read(engine: CudaEngine, prompt: Sequence[int]) -> float:
    """Compare tokens that are decoded one by one with those that are read at once."""
    one, many = engine.zero_state(), engine.zero_state()
    logits = [engine.decode([token], [one])[0] for token in prompt][-1]
    return distance(engine.prefill(prompt, many), logits)


def batches(engine: CudaEngine, prompt: Sequence[int]) -> dict[str, Any]:
    """Compare rows of batches with states alone: the same bits up to eight, nearly so beyond."""
    found: dict[str, Any] = {}
    state = engine.zero_state()
    engine.prefill(prompt, state)
    tokens = [1 + 7 * i % 200 for i in range(64)]
    alone = np.stack([engine.decode([token], [copied(engine, state)])[0] for token in tokens[:12]])
    for batch in (2, 3, 4, 8, 12, 64):
        rows = engine.decode(tokens[:batch], [copied(engine, state) for _ in range(batch)])[:12]
        if batch <= engine.batches[-1]:
            found[f"{batch}"] = bool(np.array_equal(rows, alone[:batch]))
        else:
            found[f"{batch}, distance"] = distance(rows, alone[: len(rows)])
    return found


def drawn(engine: CudaEngine, prompt: Sequence[int]) -> bool:
    """Tell whether greedy tokens that the card draws are those of its logits."""
    ours, theirs = engine.zero_state(), engine.zero_state()
    token = int(engine.prefill(prompt, ours).argmax())
    engine.prefill(prompt, theirs)
    draws = engine.draws(plan(Sampling(temperature=0.0, presence=0.0, frequency=0.0)))
    assert draws is not None
    for _ in range(GREEDY):
        wanted = int(engine.decode([token], [theirs])[0].argmax())
        token = draws.follow(ours, token) or 0
        if token != wanted:
            return False
    return True


def programmatic(cards: Cards, engine: CudaEngine, prompt: Sequence[int]) -> dict[str, bool]:
    """Tell whether launches that begin while the kernel before ends change a bit."""
    other = CudaEngine(cards.open(engine.weights.dtype, programmatic=False), engine.weights)
    found = {}
    for name in ("prefill", "decode"):
        rows: list[list[Any]] = []
        for one in (engine, other):
            state = one.zero_state()
            if name == "prefill":
                rows.append([one.prefill(list(prompt) * 4, one.zero_state()) for _ in range(8)])
            else:
                rows.append([one.decode([token], [state])[0] for token in list(prompt) * 4])
        found[name] = bool(np.array_equal(*map(np.stack, rows)))
    return found


def moved(file: ModelFile, engine: CudaEngine, dtype: str, prompt: Sequence[int]) -> float | str:
    """Carry a state between the C++ engine of the CPU and the card, and compare with the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        kept = {
            name: torch.frombuffer(raw.data, dtype=torch.float32).reshape(raw.shape).clone()
            for name, raw in file.checkpoint.tensors.items()
        }
        torch.save(kept, path)
        cpu = load_model(path, Strategy("cpu", dtype, "native"), tokenizer="bytes").engine
        state, whole = cpu.zero_state(), cpu.zero_state()
        for one, part in ((engine, prompt[:70]), (cpu, prompt[70:76]), (engine, prompt[76:])):
            one.prefill(part, state)
        cpu.prefill(prompt, whole)
        return distance(cpu.prefill([5], state), cpu.prefill([5], whole))
