"""A model that says what it is told to, in tokens of several bytes, and remembers all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from rwkv_cli.arch.spec import Dims, get_arch
from rwkv_cli.engine.identity import Identity
from rwkv_cli.engine.model import Model
from rwkv_cli.engine.onehost import choose_on_host, feed_apart
from rwkv_cli.engine.protocol import DrawPlan
from rwkv_cli.engine.state import State
from rwkv_cli.sampling import Choice

# Tokens that cut stop strings and characters at every place; id 0 is the end, 1 has no bytes.
_CUTTING = [
    b"", b"", b"a", b"b", b"c", b"d", b" ", b"\n", b":", b"1", b"ab", b"cd", b"bc", b"abc", b"\n\n",
    b"\n\nUser", b"User", b"User:", b"er:", b"Us", b"d\n", b"x\n\nU", b" hello", b"c\n\nUser: a",
    b"\xe2\x82\xac", b"\xe2\x82", b"\xac", b"\xe2", b"\x82\xac\n", b"\xc3\xa9", b"U", b"e", b"r",
]  # fmt: skip
TABLE = [*_CUTTING, *(byte for b in range(1, 256) if (byte := bytes([b])) not in _CUTTING)]
CUTTING = range(2, len(_CUTTING))
END, SILENT = 0, 1


class TableTokenizer:
    """Longest match over `TABLE`."""

    name, digest, vocab_size = "table", "0" * 64, len(TABLE)

    def token_bytes(self, token: int) -> bytes:
        return TABLE[token] if token < len(TABLE) else b""

    def encode(self, text: bytes) -> list[int]:
        tokens = []
        while text:
            fits = [t for t, data in enumerate(TABLE) if data and text.startswith(data)]
            tokens.append(max(fits, key=lambda t: len(TABLE[t])))
            text = text[len(TABLE[tokens[-1]]) :]
        return tokens

    def encode_stream(self, chunks: Iterable[bytes]) -> Iterator[list[int]]:
        yield self.encode(b"".join(chunks))


class ScriptedEngine:
    """Expects the tokens of a script, one after another; its state digests every token it read."""

    numerics, chunk, exact_splits = "scripted", 16, True

    def __init__(self, script: Sequence[int], start: int) -> None:
        self.script, self.start = script, start

    def zero_state(self) -> State:
        return State({"digest": np.zeros(1, dtype=np.float32)})

    def prefill(self, tokens: Sequence[int], state: State) -> np.ndarray:
        for token in tokens:
            state.arrays["digest"][:] = state.arrays["digest"] * 31 % 8191 + token
        state.tokens.extend(tokens)
        state.logits = np.zeros(len(TABLE) + 3, dtype=np.float32)
        place = state.position - self.start
        state.logits[self.script[place] if 0 <= place < len(self.script) else END] = 9
        state.logits[[SILENT, *range(len(TABLE), len(TABLE) + 3)]] = 20  # likeliest, but silent
        return state.logits.copy()

    def decode(self, tokens: Sequence[int], states: Sequence[State]) -> np.ndarray:
        return np.stack([self.prefill([t], s) for t, s in zip(tokens, states, strict=True)])

    def feed(
        self, tokens: Sequence[Sequence[int]], states: Sequence[State], wanted: Sequence[bool]
    ) -> None:
        """Feed tokens to each of B states: the single ones together, the others one by one."""
        feed_apart(self, tokens, states, wanted)

    def choose(self, states: Sequence[State], choices: Sequence[Choice]) -> list[int]:
        """Draw a token from the logits of each of B states."""
        return choose_on_host(states, choices)

    def draws(self, plan: DrawPlan) -> None:
        return None


def scripted(script: Sequence[int], prompt: Sequence[int]) -> Model:
    """Make a model that says the tokens of the script after the prompt, and then ends."""
    identity = Identity(f"v7;V={len(TABLE) + 3};", "w", "t", "scripted")
    silent = np.array([SILENT, *range(len(TABLE), len(TABLE) + 3)], dtype=np.intp)
    dims = Dims(1, 1, len(TABLE) + 3, {})
    engine = ScriptedEngine(script, len(prompt))
    return Model(
        "scripted", Path("scripted"), get_arch("v7"), dims, engine, identity, TableTokenizer(),
        "world", silent,
    )  # fmt: skip


def ways(text: bytes) -> list[tuple[int, ...]]:
    """List all ways to write a text in the cutting tokens; the last may go on beyond it."""
    if not text:
        return [()]
    found = []
    for token in CUTTING:
        data = TABLE[token]
        if text.startswith(data):
            found += [(token, *rest) for rest in ways(text[len(data) :])]
        elif data.startswith(text):
            found.append((token,))
    return found


def text_of(tokens: Sequence[int]) -> bytes:
    """Join the bytes of tokens."""
    return b"".join(TABLE[token] for token in tokens)
