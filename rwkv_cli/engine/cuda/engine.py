"""Runs a model on a card: small batches token by token with kernels of our own, many tokens at once
around the vendor's matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import torch

from rwkv_cli.arch.spec import state_shapes
from rwkv_cli.engine.cuda.decode import BATCHES, Decode, dot_parts
from rwkv_cli.engine.cuda.device import Device, Run
from rwkv_cli.engine.cuda.draws import Drawer, Draws
from rwkv_cli.engine.cuda.program import constant
from rwkv_cli.engine.cuda.rows import Rows
from rwkv_cli.engine.cuda.slots import Layout, Slot, on_card
from rwkv_cli.engine.cuda.weights import TYPES, Weights
from rwkv_cli.engine.onehost import choose_on_host, feed_apart
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State, empty_state
from rwkv_cli.errors import LimitError
from rwkv_cli.sampling import Choice

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s

# Tokens of a prefill that are computed at once, largest first; what is left is decoded. Few sizes,
# since each has a program and memory of its own.
CHUNKS = (1024, 256, 64, 16, 4)
_UNPACKED = 64  # tokens that are worth unpacking weights for

_VERSIONS = {
    "v4": "v4", "v5.0": "v5", "v5.1": "v5", "v5.2": "v5", "v6": "v6", "v7": "v7",
}  # fmt: skip


class CudaEngine:
    """The engine of a card.

    Args:
        device: The card with its kernels.
        weights: The model on it.
        decodes: Whether the kernels for single tokens are used.
        reads: Whether those for many tokens at once are.
    """

    def __init__(
        self, device: Device, weights: Weights, *, decodes: bool = True, reads: bool = True
    ) -> None:
        self.device, self.weights = device, weights
        self.arch, self.dims = weights.arch, weights.dims
        self.layout = Layout(state_shapes(self.arch, self.dims))
        self.version = import_module(f"rwkv_cli.engine.cuda.{_VERSIONS[self.arch.name]}")
        self.version.prepare(weights)
        self.numerics = f"cuda {device.kind} {weights.dtype}"
        self.chunk, self.exact_splits = CHUNKS[0], False
        self.batches = tuple(b for b in BATCHES if decodes and self._fits(b))
        # A pass unpacks every packed matrix, which costs as much as dozens of decoded tokens.
        worth = [size for size in CHUNKS if size >= _UNPACKED or not weights.packed]
        self.chunks = tuple(worth) if reads else ()
        assert self.batches or self.chunks
        self._drawer: Drawer | None = None
        self._decodes: dict[int, tuple[Decode, Run]] = {}
        self._rows: dict[tuple[int, int], tuple[Rows, Run]] = {}
        # What rows of a batch read and write that nobody asked for.
        self._idle = self._slot(self._first_state()).data
        self._spare = torch.empty_like(self._idle)

    def zero_state(self) -> State:
        """Give the state before any token, which is on the card and which nobody changes."""
        state = State({})
        state.move_to(Slot(self.layout, self._idle))
        return state

    def _first_state(self) -> State:
        """Make that state on the host; a state tuned into the model is where it starts."""
        state = empty_state(self.arch, self.dims)
        for layer, wkv in self.weights.start.items():
            state.arrays["wkv"][layer] = wkv.numpy()
        return state

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], state: State) -> Float32s:
        """Feed tokens to a state, a chunk at a time: (V,) float32 logits of the next one."""
        done = 0
        while done < len(tokens):
            size = next((c for c in self.chunks if c <= len(tokens) - done), 1)
            logits = self._pass([tokens[done : done + size]], [state])
            done += size
        row: Float32s = self._on_host(logits)[0]
        state.logits = row.copy()  # the caller may change what it is given
        return row

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], states: Sequence[State]) -> Float32s:
        """Feed one token to each of B states, in one pass over the weights: (B, V)
        float32 logits.
        """
        rows = self._on_host(self._pass([[token] for token in tokens], states))
        for row, state in zip(rows, states, strict=True):
            state.logits = row.copy()  # the caller may change what it is given
        return rows

    def _on_host(self, logits: torch.Tensor) -> Float32s:
        """Wait for logits, and copy them."""
        found: Float32s = self.device.download(logits)().numpy().copy()
        return found

    def feed(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State], wanted: Sequence[bool]
    ) -> None:
        """Feed tokens to each of B states: the single ones together, the others one by one."""
        feed_apart(self, tokens, states, wanted)

    def choose(self, states: Sequence[State], choices: Sequence[Choice]) -> list[int]:
        """Draw a token from the logits of each of B states."""
        return choose_on_host(states, choices)

    def draws(self, plan: DrawPlan) -> Draws | None:
        """Begin to draw the tokens of a generation on the card."""
        if 1 not in self.batches or self.dims.vocab > constant("kSampleVocab"):
            return None
        if self._drawer is None:
            with torch.inference_mode(), self.device.guard():
                self._drawer = Drawer(self.device, self.layout, self.built_decode(1))
        return Draws(self._drawer, plan)

    def _pass(self, tokens: Sequence[Sequence[int]], states: Sequence[State]) -> torch.Tensor:
        """Advance each state by as many tokens as every other: (B, V) logits on the card, there
        until the next pass.
        """
        with self.device.guard():
            program, run = self._program(len(states), len(tokens[0]))
            before = [self._slot(state).data for state in states]
            after = [torch.empty_like(self._idle) for _ in states]
            self._feed(program, before, after, tokens)
            run()
        for state, data, fed in zip(states, after, tokens, strict=True):
            state.move_to(Slot(self.layout, data))
            state.tokens.extend(fed)
        return program.logits[: len(states)]

    def _program(self, sequences: int, tokens: int) -> tuple[Decode | Rows, Run]:
        """Give the program for some tokens of at least so many sequences."""
        batch = next((size for size in self.batches if size >= sequences), None)
        if tokens == 1 and batch:
            return self._decode(batch)
        if not self.chunks:
            raise LimitError(f"the kernels here decode at most {self.batches[-1]} states at once")
        size = sequences if sequences <= BATCHES[-1] else 1 << (sequences - 1).bit_length()
        return self._many(size, tokens)

    def _decode(self, batch: int) -> tuple[Decode, Run]:
        """Give the program of a token of so many sequences."""
        if batch not in self._decodes:
            decode = self.built_decode(batch)
            self._decodes[batch] = decode, self.device.captured(decode.program.run)
        return self._decodes[batch]

    def built_decode(self, batch: int) -> Decode:
        """Build a program of a token, which may be added to before it is captured."""
        decode = Decode(self.device, self.weights, self.layout, batch)
        decode.embed()
        for layer in range(self.dims.layers):
            self.version.decode_layer(decode, layer)
        decode.head()
        return decode

    def _many(self, sequences: int, tokens: int) -> tuple[Rows, Run]:
        """Give the program of many tokens."""
        key = sequences, tokens
        if key not in self._rows:
            rows = Rows(self.device, self.weights, self.layout, sequences, tokens)
            rows.embed()
            for layer in range(self.dims.layers):
                self.version.rows_layer(rows, layer)
            rows.head()
            self._rows[key] = rows, self.device.captured(rows.program.run)
        return self._rows[key]

    def _feed(
        self,
        program: Decode | Rows,
        before: list[torch.Tensor],
        after: list[torch.Tensor],
        tokens: Sequence[Sequence[int]],
    ) -> None:
        """Tell a program its states and tokens; sequences that nobody asked for get idle ones."""
        missing = program.sequences - len(before)
        before, after = before + [self._idle] * missing, after + [self._spare] * missing
        addresses = np.array([t.data_ptr() for t in (*before, *after)], np.int64)
        ids = np.zeros((program.sequences, program.tokens), np.int32)
        if tokens:
            ids[: len(tokens)] = tokens
        raw = np.concatenate((addresses.view(np.uint8), ids.reshape(-1).view(np.uint8)))
        self.device.upload(program.feed, torch.from_numpy(raw))

    def _slot(self, state: State) -> Slot:
        return on_card(state, self.layout, self.device.place)

    def _fits(self, batch: int) -> bool:
        """Tell whether the inputs of so many sequences fit into a block's memory."""
        widest = max(self.dims.width, self.dims.letters["A"])
        parts = dot_parts(widest, TYPES[self.weights.dtype])
        dot = Decode.dot_bytes(batch, widest, parts)
        return max(dot, Decode.value_bytes(batch)) <= self.device.shared
