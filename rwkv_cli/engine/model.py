"""A loaded model: the door from engines to everything above. States given to it are
never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from rwkv_cli.arch.spec import Arch, Dims, state_shapes
from rwkv_cli.engine.identity import Identity
from rwkv_cli.engine.protocol import Engine
from rwkv_cli.engine.state import State
from rwkv_cli.errors import UsageError
from rwkv_cli.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rwkv_cli.engine.state import Float32s

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Model:
    """Weights, their engine and their tokenizer.

    Attributes:
        name: What people call it: the file's stem, or "demo".
        path: The weights file.
        arch: The version.
        dims: The sizes.
        engine: What runs it.
        identity: What its states are bound to.
        tokenizer: Bytes to token ids and back.
        template: Name of its chat format.
        silent: (n,) ids without bytes, such as the padding rows of a head: never to be sampled.
        notice: What its user should know about how it runs, such as why not on the native engine.
    """

    name: str
    path: Path
    arch: Arch
    dims: Dims
    engine: Engine
    identity: Identity
    tokenizer: Tokenizer
    template: str
    silent: NDArray[np.intp]
    notice: str | None = None

    def zero_state(self) -> State:
        """Make the state before any token."""
        state = self.engine.zero_state()
        state.identity = self.identity
        return state

    def prefill(self, tokens: Sequence[int], state: State | None = None) -> tuple[Float32s, State]:
        """Read tokens.

        Args:
            tokens: One or more ids.
            state: Where to go on from; None is the beginning.

        Returns:
            (V,) float32 logits of the next token, and the state after them.

        Raises:
            UsageError: There is no token, or one is outside the vocabulary.
        """
        after = self.zero_state() if state is None else state.clone()
        return self.advance(tokens, after), after

    @overload
    def decode(self, tokens: int, states: State) -> tuple[Float32s, State]: ...

    @overload
    def decode(
        self, tokens: Sequence[int], states: Sequence[State]
    ) -> tuple[Float32s, list[State]]: ...

    def decode(
        self, tokens: int | Sequence[int], states: State | Sequence[State]
    ) -> tuple[Float32s, State | list[State]]:
        """Read one token from one state, or one from each of B states in one pass over the
        weights.

        Returns:
            (V,) float32 logits and the state after it, or (B, V) logits and the B states.

        Raises:
            UsageError: A token is outside the vocabulary, or the numbers of tokens and states
                differ.
        """
        if isinstance(states, State):
            if not isinstance(tokens, (int, np.integer)):
                raise UsageError("one state takes one token; use prefill for several")
            after = states.clone()
            self.check([int(tokens)])
            return self.engine.decode([int(tokens)], [after])[0], after
        if isinstance(tokens, (int, np.integer)) or len(tokens) != len(states):
            raise UsageError(f"{len(states)} states need as many tokens")
        self.check(tokens)
        clones = [state.clone() for state in states]
        return self.engine.decode(tokens, clones), clones

    def load_state(self, path: str | Path) -> State:
        """Read a state file of this model.

        Raises:
            NotFoundError: There is no such file.
            RefusedError: It is damaged.
            MismatchError: It belongs to another model.
        """
        from rwkv_cli.engine.statefile import load_state

        return load_state(Path(path), self.identity, state_shapes(self.arch, self.dims))

    def advance(self, tokens: Sequence[int], state: State) -> Float32s:
        """Read tokens like `prefill`, changing the state that is given."""
        self.check(tokens)
        return self.engine.prefill(tokens, state)

    def advance_stream(
        self, pieces: Iterable[Sequence[int]], state: State, progress: Progress | None = None
    ) -> int:
        """Read a stream of tokens of any length in constant memory, changing the state that is
        given.

        Args:
            pieces: Lists of token ids, of any lengths.
            state: Advanced in place.
            progress: Called with the number of tokens read so far.

        Returns:
            The number of tokens read.
        """
        total = 0
        for block in _regroup(pieces, 8 * self.engine.chunk):
            self.advance(block, state)
            total += len(block)
            if progress:
                progress(total)
        return total

    def check(self, tokens: Sequence[int]) -> None:
        """Refuse tokens that cannot be fed.

        Raises:
            UsageError: There is none, or one is outside the vocabulary.
        """
        if len(tokens) == 0:
            raise UsageError("there is no token to read")
        if min(tokens) < 0 or max(tokens) >= self.dims.vocab:
            raise UsageError(f"a token id is outside the vocabulary of {self.dims.vocab}")


def _regroup(pieces: Iterable[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Cut a stream into blocks of one size, so that how it arrived cannot change the arithmetic."""
    block: list[int] = []
    for piece in pieces:
        block += piece
        whole = len(block) - len(block) % size
        for start in range(0, whole, size):
            yield block[start : start + size]
        block = block[whole:]
    if block:
        yield block
