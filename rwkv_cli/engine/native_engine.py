"""Runs a model on the CPU through the C++ library; states are those of every other engine. It never
imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np

from rwkv_cli.arch.spec import Arch, Dims, state_shapes
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State, empty_state
from rwkv_cli.native.choose import Penalty, Row, choose
from rwkv_cli.native.largepages import move_in_background
from rwkv_cli.native.library import NativeError
from rwkv_cli.native.model import Config, NativeModel, NativeTensor
from rwkv_cli.native.pool import Pool
from rwkv_cli.native.rows import Rows
from rwkv_cli.native.sample import Settings
from rwkv_cli.sampling import Choice

if TYPE_CHECKING:
    from rwkv_cli.engine.state import Float32s

_SETTLED = 4  # calls after which a model is at work, and its weights are worth moving
CHUNK = 144  # kMaxRows of native/src/model.h: tokens that share one pass over the weights

_VERSIONS = {"v4": 40, "v5.0": 50, "v5.1": 51, "v5.2": 52, "v6": 60, "v7": 70}


class NativeEngine:
    """The engine of a CPU: the whole model in one call.

    Every token is computed by the same arithmetic whatever is computed beside it, so prefill equals
    decode, a batch equals single states, and any number of threads gives the same bits.
    """

    def __init__(
        self,
        tensors: Sequence[NativeTensor],
        arch: Arch,
        dims: Dims,
        pool: Pool,
        *,
        dtype: str,
        start: Mapping[int, Float32s] | None = None,
    ) -> None:
        """Make the engine.

        Args:
            tensors: Weights, as `native_weights.load_tensors` gives them.
            arch: The version.
            dims: The sizes.
            pool: The threads.
            dtype: Precision of the matrices, for `numerics`.
            start: Tuned starting state of layers, each (H, N, N).

        Raises:
            NativeError: The library does not run models of these sizes.
        """
        letters = dims.letters
        config = Config(
            _VERSIONS[arch.name],
            dims.layers,
            dims.width,
            letters["A"],
            letters.get("H", 0),
            letters.get("N", 0),
            letters["F"],
            dims.vocab,
        )
        self.model = NativeModel(config, tensors, pool)
        self.arch, self.dims, self.pool = arch, dims, pool
        self._shapes = state_shapes(arch, dims)
        self.numerics = f"native {self.model.instruction_set} {dtype}"
        self.chunk, self.exact_splits = CHUNK, True
        self._start = dict(start or {})
        # What is used in place comes as a view of the file.
        in_file = (t for t in tensors if isinstance(t.data, memoryview))
        self._mapped = [t.data for t in in_file if not _picked(t)]
        self._rows = Rows(dims.vocab)
        self._calls = 0
        self.moving: Thread | None = None

    def zero_state(self) -> State:
        """Make the state before any token; a state tuned into the model is where it starts."""
        state = empty_state(self.arch, self.dims)
        for layer, wkv in self._start.items():
            state.arrays["wkv"][layer] = wkv
        return state

    def prefill(self, tokens: Sequence[int], state: State) -> Float32s:
        """Feed tokens to a state, a chunk at a time: (V,) float32 logits of the next one."""
        self.feed([tokens], [state], [True])
        assert state.logits is not None
        return state.logits.copy()  # the caller may change what it is given

    def decode(self, tokens: Sequence[int], states: Sequence[State]) -> Float32s:
        """Feed one token to each of B states, in one pass over the weights: (B, V)
        float32 logits.
        """
        self.feed([[token] for token in tokens], states, [True] * len(states))
        logits = np.empty((len(states), self.dims.vocab), np.float32)
        for row, state in zip(logits, states, strict=True):
            row[:] = state.logits
        return logits

    def feed(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State], wanted: Sequence[bool]
    ) -> None:
        """Feed tokens to each of B states, all in one pass over the weights. A state's logits are
        an array of its own, which is never written again while anybody has it.
        """
        self._settle()
        ids = [token for fed in tokens for token in fed]
        arrays = [self._in_place(state) for state in states]
        logits = [self._rows.take() if is_wanted else None for is_wanted in wanted]
        self.model.forward(ids, [len(fed) for fed in tokens], arrays, logits)
        for fed, state, row in zip(tokens, states, logits, strict=True):
            state.tokens.extend(fed)
            state.logits = row

    def choose(self, states: Sequence[State], choices: Sequence[Choice]) -> list[int]:
        """Draw a token from the logits of each of B states, with all threads."""
        rows = [_row(state, choice) for state, choice in zip(states, choices, strict=True)]
        return choose(self.pool, rows) if rows else []

    def draws(self, plan: DrawPlan) -> None:
        """Leave drawing to the host."""

    def _in_place(self, state: State) -> list[Float32s]:
        """Give a state's arrays in the library's order; what lies in pieces is put together.

        Raises:
            NativeError: The state is of a model of other sizes.
        """
        arrays = state.arrays
        for name, shape in self._shapes.items():
            if name not in arrays or arrays[name].shape != shape:
                raise NativeError(f"array {name} of a state does not have the shape {shape}")
            if not arrays[name].flags.carray or arrays[name].dtype != np.float32:
                arrays[name] = np.array(arrays[name], np.float32, order="C")
        return [arrays[name] for name in self._shapes]

    def _settle(self) -> None:
        """Count calls, and have weights that lie in a file moved to where they are read faster."""
        self._calls += 1
        if self._calls == _SETTLED:
            self.moving = move_in_background(self._mapped)


def _row(state: State, choice: Choice) -> Row:
    """Say for the library what is drawn from and how."""
    sampling, penalties = choice.sampling, choice.penalties
    assert state.logits is not None
    return Row(
        np.ascontiguousarray(state.logits),
        choice.never.astype(np.int64, copy=False),
        Penalty(penalties.ids, penalties.counts, sampling.presence, sampling.frequency),
        Settings(
            sampling.top_p,
            sampling.top_k,
            sampling.temperature,
            sampling.min_p,
            sampling.order == "openai",
        ),
        choice.u,
    )


def _picked(tensor: NativeTensor) -> bool:
    """Tell whether only single rows of a tensor are ever read."""
    return tensor.name == "emb.weight"
