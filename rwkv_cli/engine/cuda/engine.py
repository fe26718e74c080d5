"""Runs a model on a card: small batches token by token with kernels of our own, many tokens at once
around the vendor's matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rwkv_cli.arch.spec import state_shapes
from rwkv_cli.engine.cuda.chooser import Chooser
from rwkv_cli.engine.cuda.decode import BATCHES, Decode, dot_parts
from rwkv_cli.engine.cuda.device import Device, Launch, Run
from rwkv_cli.engine.cuda.draws import CardLogits, Drawer, Draws
from rwkv_cli.engine.cuda.program import Arena, constant
from rwkv_cli.engine.cuda.rows import Rows
from rwkv_cli.engine.cuda.slots import Cell, Cells, Layout, Slot, Slots
from rwkv_cli.engine.cuda.weights import TYPES, Weights
from rwkv_cli.engine.onehost import choose_on_host, feed_apart
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State, empty_state
from rwkv_cli.engine.torch_weights import within_memory
from rwkv_cli.errors import LimitError
from rwkv_cli.native.cuda.structures import structures
from rwkv_cli.sampling import Choice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rwkv_cli.engine.state import Float32s

# Tokens of a prefill that are computed at once, largest first; what is left is decoded. Few sizes,
# since each has a program and memory of its own.
CHUNKS = (1024, 256, 64, 16, 4)
_UNPACKED = 64  # tokens that are worth unpacking weights for
# Sequences that a pass of more rows than sequences has room for.
_SEQUENCES = (1, 8, 64, 128, 192, 256, 320, 384, 512)
_COPIERS = 8  # blocks that copy a row of logits
_LEAST_ROWS, _FINE = CHUNKS[-1], 512  # rows of the smallest pass; from where sizes lie closer

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
        self.slots = Slots(self.layout, device.place)
        self.scores = Cells(self.dims.vocab, device.place)
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
        self._chooser: Chooser | None = None
        self._arena = Arena(device)
        self._decodes: dict[int, tuple[Decode, Run]] = {}
        self._rows: dict[tuple[int, int], tuple[Rows, Run]] = {}
        # What rows of a batch read and write that nobody asked for.
        self._idle = self.slots.on_card(self._first_state()).cell
        (self._spare,) = self.slots.take(1)

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

    @torch.inference_mode()
    def feed(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State], wanted: Sequence[bool]
    ) -> None:
        """Feed tokens to each of B states in one pass; the logits stay on the card.

        Raises:
            LimitError: There is no room for so many states.
        """
        if not self.chunks:  # then single tokens are all that a pass may have
            feed_apart(self, tokens, states, wanted)
            return
        order = sorted(range(len(states)), key=lambda row: not wanted[row])
        count = sum(wanted)
        ordered = [states[row] for row in order]
        try:
            with within_memory(len(states), self.device.name), self.device.guard():
                kept = self.scores.take(count)
                logits = self._pass([tokens[row] for row in order], ordered)
                self._keep(logits, kept)
        except LimitError:
            self.slots.trim()
            self.scores.trim()
            raise
        for cell, state in zip(kept, ordered, strict=False):
            state.logits = CardLogits(cell)
        for state in ordered[count:]:
            state.logits = None

    def _keep(self, logits: torch.Tensor, cells: Sequence[Cell]) -> None:
        """Copy the first rows of logits to memory of their own, before the next pass."""
        if not cells:
            return
        where = torch.empty(len(cells), dtype=torch.int64, device=self.device.place)
        self.device.upload(where, torch.tensor([cell.address for cell in cells]))
        threads = constant("kRowThreads")
        arguments = structures()["RowsCopyArguments"](
            **{"from": logits.data_ptr()}, to=where.data_ptr(), width=self.dims.vocab
        )
        grid = (len(cells), _COPIERS, 1)
        self.device.launch(Launch("rows_copy", grid, threads, 0, arguments))

    @torch.inference_mode()
    def choose(self, states: Sequence[State], choices: Sequence[Choice]) -> list[int]:
        """Draw a token from the logits of each of B states, on the card.

        Raises:
            LimitError: There is no room for so many.
        """
        if not self._draws_here():
            return choose_on_host(states, choices)
        with within_memory(len(states), self.device.name), self.device.guard():
            if self._chooser is None:
                self._chooser = Chooser(self.device, self.dims.vocab)
            return self._chooser.choose([state.kept_logits for state in states], choices)

    def draws(self, plan: DrawPlan) -> Draws | None:
        """Begin to draw the tokens of a generation on the card."""
        if not self._draws_here():
            return None
        if self._drawer is None:
            with torch.inference_mode(), self.device.guard():
                decode = self.built_decode(1)
                self._drawer = Drawer(self.device, self.slots, self.scores, decode)
        return Draws(self._drawer, plan)

    def _draws_here(self) -> bool:
        return 1 in self.batches and self.dims.vocab <= constant("kSampleVocab")

    def slot_bytes(self) -> int:
        """Count the bytes that a sequence at work takes at most: its state before and after a pass,
        and its logits: of a program with room for up to twice as many, before and after a pass,
        and as many counts.
        """
        return 8 * self.layout.size + 4 * 5 * self.dims.vocab + self.dims.vocab // 8

    def free_bytes(self) -> int | None:
        """Count the bytes of the card that sequences may take, besides what passes need for
        themselves; None where nothing tells.
        """
        if self.chunks:
            self._many(1, self.chunk)  # so that this is not free any more
        free = self.device.free_bytes()
        return None if free is None else free + self.slots.free_bytes + self.scores.free_bytes

    def _pass(self, tokens: Sequence[Sequence[int]], states: Sequence[State]) -> torch.Tensor:
        """Advance each state by some tokens: (B, V) logits on the card, there until the next
        pass.
        """
        with self.device.guard():
            program, run = self._program(len(states), sum(map(len, tokens)))
            before = [self.slots.on_card(state).cell for state in states]
            after = self.slots.take(len(states))
            self._feed(program, before, after, tokens)
            run()
        for state, cell, fed in zip(states, after, tokens, strict=True):
            state.move_to(Slot(self.layout, cell))
            state.tokens.extend(fed)
        return program.logits[: len(states)]

    def _program(self, sequences: int, tokens: int) -> tuple[Decode | Rows, Run]:
        """Give the program for so many tokens in all of at least so many sequences."""
        batch = next((size for size in self.batches if size >= sequences), None)
        if tokens == sequences and batch:
            return self._decode(batch)
        if not self.chunks:
            raise LimitError(f"the kernels here decode at most {self.batches[-1]} states at once")
        rows = _rows_for(tokens)
        room = next((size for size in _SEQUENCES if size >= sequences), rows)
        return self._many(min(room, rows), rows)

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

    def _many(self, sequences: int, rows: int) -> tuple[Rows, Run]:
        """Give the program of so many tokens."""
        key = sequences, rows
        if key not in self._rows:
            with torch.inference_mode():
                built = Rows(self._arena, self.weights, self.layout, sequences, rows)
                built.embed()
                for layer in range(self.dims.layers):
                    self.version.rows_layer(built, layer)
                built.head()
            self._rows[key] = built, self.device.captured(built.program.run)
        return self._rows[key]

    def _feed(
        self,
        program: Decode | Rows,
        before: Sequence[Cell],
        after: Sequence[Cell],
        tokens: Sequence[Sequence[int]],
    ) -> None:
        """Tell a program its states and tokens; sequences that nobody asked for get idle ones."""
        addresses = np.empty((2, program.sequences), np.int64)
        for row, cells, idle in ((0, before, self._idle), (1, after, self._spare)):
            addresses[row, : len(cells)] = [cell.address for cell in cells]
            addresses[row, len(cells) :] = idle.address
        ids = np.fromiter(chain.from_iterable(tokens), np.int32)
        parts: list[NDArray[Any]] = [addresses, *program.placed(list(map(len, tokens))), ids]
        raw = np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])
        self.device.upload(program.feed[: len(raw)], torch.from_numpy(raw))

    def _fits(self, batch: int) -> bool:
        """Tell whether the inputs of so many sequences fit into a block's memory."""
        widest = max(self.dims.width, self.dims.letters["A"])
        parts = dot_parts(widest, TYPES[self.weights.dtype])
        dot = Decode.dot_bytes(batch, widest, parts)
        return max(dot, Decode.value_bytes(batch)) <= self.device.shared


def _rows_for(tokens: int) -> int:
    """Give the rows of the pass that reads so many tokens: few sizes, and no great waste where a
    product takes as long as it has rows.
    """
    rows: int = max(_LEAST_ROWS, 1 << (tokens - 1).bit_length())
    return rows * 3 // 4 if rows >= _FINE and tokens <= rows * 3 // 4 else rows
