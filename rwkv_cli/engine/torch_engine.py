"""Runs a stack with torch, on any of its devices or on several: the reference engine. It knows no
files and no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwkv_cli.arch.spec import Arch, Dims
from rwkv_cli.arch.stack import Stack
from rwkv_cli.engine.onehost import choose_on_host, feed_apart
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State, empty_state
from rwkv_cli.engine.torch_states import Residence, Span
from rwkv_cli.engine.torch_weights import within_memory
from rwkv_cli.sampling import Choice

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s

CHUNK = 256  # tokens of a prefill computed at once: enough for full matrix speed, small in memory

_PRECISION = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class TorchEngine:
    """The engine that follows the formulas of `arch` to the letter, on a CPU or any device of
    torch.
    """

    def __init__(self, stack: Stack, arch: Arch, dims: Dims, device: str) -> None:
        """Make an engine of one device."""
        start = {
            layer: p.att_time_state.cpu().numpy()
            for layer, p in enumerate(stack.layers)
            if hasattr(p, "att_time_state")
        }
        numerics = f"{torch.device(device).type} {_PRECISION[stack.ends.head.dtype]}"
        self._set_up(stack, arch, dims, (Span(device, 0, dims.layers),), numerics, start)

    @classmethod
    def split(
        cls,
        stack: Stack,
        model: tuple[Arch, Dims],
        spans: tuple[Span, ...],
        numerics: str,
        start: Mapping[int, Float32s],
    ) -> TorchEngine:
        """Make an engine whose layers lie on several devices, or are streamed.

        Args:
            stack: The parameters; the embedding lies on the CPU.
            model: Version and sizes.
            spans: Where the layers lie.
            numerics: What `numerics` says after "torch".
            start: Tuned starting state of layers, each (H, N, N).
        """
        engine = cls.__new__(cls)
        engine._set_up(stack, *model, spans, numerics, start)
        return engine

    def _set_up(
        self,
        stack: Stack,
        arch: Arch,
        dims: Dims,
        spans: tuple[Span, ...],
        numerics: str,
        start: Mapping[int, Float32s],
    ) -> None:
        self.stack, self.arch, self.dims = stack, arch, dims
        self.numerics = f"torch {numerics}"
        self.chunk, self.exact_splits = CHUNK, False
        self._states, self._start = Residence(spans), start

    def zero_state(self) -> State:
        """Make the state before any token; a state tuned into the model is where it starts."""
        state = empty_state(self.arch, self.dims)
        for layer, wkv in self._start.items():
            state.arrays["wkv"][layer] = wkv
        return state

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], state: State) -> Float32s:
        """Feed tokens to a state, a chunk at a time: (V,) float32 logits of the next one."""
        ids = self._ids(tokens)
        opened = self._states.open([state])
        views = list(self._states.layers(opened))
        for start in range(0, len(ids), CHUNK):
            hidden = self.stack.hidden(ids[None, start : start + CHUNK], views)
        logits = self.stack.logits(hidden[0, -1])
        self._states.close(opened, [state])
        row: Float32s = self._finish(logits[None], [tokens], [state])[0]
        return row

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], states: Sequence[State]) -> Float32s:
        """Feed one token to each of B states, in one pass over the weights: (B, V)
        float32 logits.
        """
        opened = self._states.open(states)
        views = list(self._states.layers(opened))
        hidden = self.stack.hidden(self._ids(tokens)[:, None], views)
        logits = self.stack.logits(hidden[:, 0])
        self._states.close(opened, states)
        return self._finish(logits, [[t] for t in tokens], states)

    def _ids(self, tokens: Sequence[int]) -> torch.Tensor:
        """Bring tokens to where the embedding is."""
        return torch.as_tensor(np.asarray(tokens, dtype=np.int64), device=self.stack.emb.device)

    def feed(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State], wanted: Sequence[bool]
    ) -> None:
        """Feed tokens to each of B states: the single ones together, the others one by one."""
        with within_memory(len(states), self._states.device):
            feed_apart(self, tokens, states, wanted)

    def slot_bytes(self) -> int:
        """Count the bytes that a sequence at work takes at most: its state, once more within a
        pass of several, and its logits, once more within it.
        """
        return 2 * (empty_state(self.arch, self.dims).nbytes + 4 * self.dims.vocab)

    def free_bytes(self) -> int | None:
        """Count the bytes that sequences may take where there is the least room."""
        return self._states.free_bytes()

    def choose(self, states: Sequence[State], choices: Sequence[Choice]) -> list[int]:
        """Draw a token from the logits of each of B states."""
        return choose_on_host(states, choices)

    def draws(self, plan: DrawPlan) -> None:
        """Leave drawing to the host."""

    def _finish(
        self, logits: torch.Tensor, tokens: Sequence[Sequence[int]], states: Sequence[State]
    ) -> Float32s:
        """Record what each state has read and what it expects next."""
        out: Float32s = logits.cpu().numpy()
        for row, (fed, state) in enumerate(zip(tokens, states, strict=True)):
            state.tokens.extend(fed)
            state.logits = out[row].copy()  # the caller may change what it is given
        return out
