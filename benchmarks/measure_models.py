"""What a model's values look like on random tokens, layer by layer, seen by the torch engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from rwkv_cli import ops
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.engine.torch_engine import TorchEngine
from rwkv_cli.engine.torch_weights import load_stack

TOKENS = 192
UNION = 64
POSITIONS = 16


@dataclass
class Statistics:
    """Values of a model over TOKENS random tokens.

    Attributes:
        zeros: Share of relu(k)^2 that is zero, a layer.
        union: Share of channels that is zero for UNION tokens in a row, a layer.
        residual: Root mean square of the residual stream before each norm.
        entropy: Entropy of the next token in nats, over the last ones.
    """

    zeros: list[float] = field(default_factory=list)
    union: list[float] = field(default_factory=list)
    residual: list[float] = field(default_factory=list)
    entropy: float = 0.0

    def __str__(self) -> str:
        zeros = " ".join(f"{100 * z:.0f}" for z in self.zeros)
        mean = 100 * np.mean(self.zeros)
        return (
            f"  zeros of relu(k)^2 in percent, a layer: {zeros}; mean {mean:.1f}\n"
            f"  zero for {UNION} tokens together: {100 * np.mean(self.union):.1f} %\n"
            f"  residual stream: {min(self.residual):.2f} to {max(self.residual):.2f}; "
            f"entropy of the next token: {self.entropy:.1f} nats"
        )


def measure(path: Path) -> Statistics:
    """Run a model on random tokens and collect its statistics."""
    file = open_model(path)
    stack = load_stack(file.checkpoint, file.arch, file.dims, "bf16", "cpu")
    engine = TorchEngine(stack, file.arch, file.dims, "cpu")
    tokens = np.random.default_rng(1).integers(1, file.dims.vocab, TOKENS).tolist()
    state = engine.zero_state()
    with _watched() as seen:
        engine.prefill(tokens, state)
    entropies = []
    for token in tokens[:POSITIONS]:
        logits = engine.decode([token], [state])[0].astype(np.float64)
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        entropies.append(-(chances * np.log(chances + 1e-300)).sum())
    seen.entropy = float(np.mean(entropies))
    return seen


@contextmanager
def _watched() -> Iterator[Statistics]:
    """Collect what passes through the operations that every version uses."""
    seen = Statistics()
    relu, norm = ops.squared_relu, ops.layer_norm

    def watched_relu(k: torch.Tensor) -> torch.Tensor:
        y = relu(k)
        zero = (y == 0).flatten(0, -2)
        seen.zeros.append(float(zero.float().mean()))
        seen.union.append(float(zero[-UNION:].all(0).float().mean()))
        return y

    def watched_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        seen.residual.append(float(x.square().mean().sqrt()))
        return norm(x, weight, bias)

    ops.squared_relu, ops.layer_norm = watched_relu, watched_norm
    try:
        yield seen
    finally:
        ops.squared_relu, ops.layer_norm = relu, norm
