"""Runs a stack with torch, on any of its devices: the reference engine. It knows no files and no
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwkv_cli.arch.spec import Arch, Dims
from rwkv_cli.arch.stack import Stack
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State, empty_state

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s

CHUNK = 256  # tokens of a prefill computed at once: enough for full matrix speed, small in memory

Tensors = Mapping[str, torch.Tensor]  # a state on its device: name to (layers, batch, ...)


class TorchArrays:
    """A state's arrays on a torch device, each (layers, ...)."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = dict(tensors)

    def to_host(self) -> dict[str, Float32s]:
        """Copy every array to the host."""
        return {name: t.cpu().numpy() for name, t in self.tensors.items()}

    def clone(self) -> TorchArrays:
        """Copy every array on its device."""
        return TorchArrays({name: t.clone() for name, t in self.tensors.items()})


class TorchEngine:
    """The engine that follows the formulas of `arch` to the letter, on a CPU or any device of
    torch.
    """

    def __init__(self, stack: Stack, arch: Arch, dims: Dims, device: str) -> None:
        self.stack, self.arch, self.dims = stack, arch, dims
        self.device = torch.device(device)
        precision = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        self.numerics = f"torch {self.device.type} {precision[stack.ends.head.dtype]}"
        self.chunk, self.exact_splits = CHUNK, False

    def zero_state(self) -> State:
        """Make the state before any token; a state tuned into the model is where it starts."""
        state = empty_state(self.arch, self.dims)
        for layer, p in enumerate(self.stack.layers):
            if hasattr(p, "att_time_state"):
                state.arrays["wkv"][layer] = p.att_time_state.cpu().numpy()
        return state

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], state: State) -> Float32s:
        """Feed tokens to a state, a chunk at a time: (V,) float32 logits of the next one."""
        ids = torch.as_tensor(np.asarray(tokens, dtype=np.int64), device=self.device)
        tensors = self._open([state])
        views = self._layers(tensors)
        for start in range(0, len(ids), CHUNK):
            hidden = self.stack.hidden(ids[None, start : start + CHUNK], views)
        logits = self.stack.logits(hidden[0, -1])
        self._close(tensors, [state])
        row: Float32s = self._finish(logits[None], [tokens], [state])[0]
        return row

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], states: Sequence[State]) -> Float32s:
        """Feed one token to each of B states, in one pass over the weights: (B, V)
        float32 logits.
        """
        ids = torch.as_tensor(np.asarray(tokens, dtype=np.int64), device=self.device)
        tensors = self._open(states)
        hidden = self.stack.hidden(ids[:, None], self._layers(tensors))
        logits = self.stack.logits(hidden[:, 0])
        self._close(tensors, states)
        return self._finish(logits, [[t] for t in tokens], states)

    def draws(self, plan: DrawPlan) -> None:
        """Leave drawing to the host."""

    def _open(self, states: Sequence[State]) -> Tensors:
        """Bring states to the device side by side; a single one on the host is used where it is."""
        resident = [self._resident(state) for state in states]
        if len(resident) == 1:
            return {name: t.unsqueeze(1) for name, t in resident[0].items()}
        names = self.arch.state
        return {name: torch.stack([r[name] for r in resident], dim=1) for name in names}

    def _resident(self, state: State) -> Tensors:
        if isinstance(state.device, TorchArrays):
            return state.device.tensors
        host = {name: torch.from_numpy(a) for name, a in state.arrays.items()}
        if self.device.type == "cpu":
            return host
        state.move_to(TorchArrays({name: t.to(self.device) for name, t in host.items()}))
        return self._resident(state)

    def _layers(self, tensors: Tensors) -> list[SimpleNamespace]:
        """Give each layer its (batch, ...) views, under the names of the version's state table."""
        return [
            SimpleNamespace(**{name: t[layer] for name, t in tensors.items()})
            for layer in range(self.dims.layers)
        ]

    def _close(self, tensors: Tensors, states: Sequence[State]) -> None:
        """Give states that were stacked their rows back."""
        if len(states) == 1:
            return
        for row, state in enumerate(states):
            for name, own in self._resident(state).items():
                own.copy_(tensors[name][:, row])

    def _finish(
        self, logits: torch.Tensor, tokens: Sequence[Sequence[int]], states: Sequence[State]
    ) -> Float32s:
        """Record what each state has read and what it expects next."""
        out: Float32s = logits.cpu().numpy()
        for row, (fed, state) in enumerate(zip(tokens, states, strict=True)):
            state.tokens.extend(fed)
            state.logits = out[row].copy()  # the caller may change what it is given
        return out
