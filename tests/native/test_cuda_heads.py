"""The CUDA kernels that advance heads by a token, on the CPU, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracle.cuda_host import compiler
from oracle.cuda_rows import (
    PLANES,
    Floats,
    Plane,
    Wide,
    assert_close,
    gaussian,
    launch,
    numbers,
    poisoned,
    sigmoid,
    states,
)
from oracle.packing import from_float

from rwkv_cli.engine.cuda.program import shared_bytes

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")

OFFSET = 96  # floats of a state before the part that a kernel means
HEAD_EPS = 64e-5
SHAPES = [(1, 3, 64), (2, 5, 32), (8, 3, 64), (3, 2, 128)]  # sequences, heads, head size
# Sums of 128 products of numbers about 1 lose at most 128 half units, of float32's 2**-24.
SUMS = 1e-5


class Heads:
    """What the kernels of both versions have: random states and tokens, with float64's way on."""

    vectors: tuple[str, ...]
    tokens: tuple[str, ...]

    def __init__(self, shape: tuple[int, int, int]) -> None:
        sequences, heads, size = self.shape = shape
        self.rng = rng = np.random.default_rng(size)
        self.width = width = heads * size
        self.row = {name: gaussian(rng, sequences, width) for name in self.tokens}
        self.row["r"][:, -size:] *= np.float32(1e-3)  # of a reading near the norm's epsilon
        self.vector = {name: gaussian(rng, width) for name in self.vectors}
        length = OFFSET + width * size + 32
        self.before = [gaussian(rng, length) for _ in range(sequences)]
        self.after = [poisoned(length) for _ in range(sequences)]
        self.y = poisoned(sequences + 1, width)

    def factor(self, rank: int, dtype: str) -> tuple[dict[str, Any], Wide]:
        """A second low-rank factor as a kernel's field, and its products."""
        stride = rank + 4
        low = gaussian(self.rng, self.shape[0], stride)
        low[:, rank:] = np.nan  # nobody's
        plane: Plane = from_float(gaussian(self.rng, rank, self.width, scale=rank**-0.5), dtype)
        field = {
            "weights": plane, "low": low, "type": PLANES[dtype], "rank": rank, "stride": stride
        }  # fmt: skip
        return field, low[:, :rank].astype(np.float64) @ numbers(plane, dtype)

    def start(
        self, kernel: str, structure: str, shared: int, part: slice, fields: dict[str, Any]
    ) -> Floats:
        """Launch on some sequences: what the output matrix reads."""
        for state in self.after:
            state.fill(np.nan)
        self.y.fill(np.nan)
        size, rows = self.shape[2], {name: array[part] for name, array in self.row.items()}
        count = len(rows["r"])
        launch(
            f"{kernel}_{size}", structure, (self.shape[1], count, 1), 4 * size, shared,
            **(rows | self.vector | fields), y=self.y, width=self.width,
            wkv=states(self.before[part], self.after[part], OFFSET),
        )  # fmt: skip
        assert np.isnan(self.y[count:]).all()
        return self.y[:count]

    def by_head(self, x: Any) -> Wide:
        """(sequences, heads, size)."""
        return (
            np.broadcast_to(x, (self.shape[0], self.width)).reshape(self.shape).astype(np.float64)
        )

    def matrices(self, found: list[Floats]) -> Wide:
        """Of heads: (sequences, heads, size of values, size of keys)."""
        flat = np.stack(found)[:, OFFSET:-32].astype(np.float64)
        return flat.reshape(*self.shape, self.shape[2])

    def normed(self, y: Wide) -> Wide:
        centered = y - y.mean(2, keepdims=True)
        scaled = centered / np.sqrt((centered**2).mean(2, keepdims=True) + HEAD_EPS)
        weight, bias = (self.by_head(self.vector[f"norm_{name}"]) for name in ("weight", "bias"))
        return scaled * weight + bias

    def check_states(self, expected: Wide) -> None:
        assert_close(self.matrices(self.after), expected)
        for state in self.after:
            assert np.isnan(state[:OFFSET]).all()
            assert np.isnan(state[-32:]).all()


class Heads6(Heads):
    """A random case of head6; without a low rank its decay is constant, as RWKV-5's."""

    tokens = ("r", "k", "v", "gate")
    vectors = ("u", "norm_weight", "norm_bias")

    def __init__(self, shape: tuple[int, int, int], rank: int, dtype: str = "fp32") -> None:
        super().__init__(shape)
        self.vector["decay"] = gaussian(self.rng, self.width)
        if rank:
            self.field, product = self.factor(rank, dtype)
            self.decay = np.exp(-np.exp(self.vector["decay"] + product))
        else:
            self.vector["decay"] = sigmoid(self.vector["decay"]).astype(np.float32)
            self.field, self.decay = {}, self.vector["decay"].astype(np.float64)

    def run(self, part: slice = slice(None), **changes: Any) -> Floats:
        size = self.shape[2]
        shared = shared_bytes(4 * (4 * size // 32) * size, *[4 * size] * 4)
        field = {**self.field, "low": self.field["low"][part]} if self.field else {}
        fields = {"raise_decay": field, **changes}
        return self.start("head6", "Head6Arguments", shared, part, fields)

    def expected(self) -> tuple[Wide, Wide]:
        """The normalized reading before its gate, and the states."""
        r, k, v = (self.by_head(self.row[name]) for name in "rkv")
        state, u = self.matrices(self.before), self.by_head(self.vector["u"])
        y = np.einsum("bhij,bhj->bhi", state, r) + v * (r * u * k).sum(2, keepdims=True)
        after = state * self.by_head(self.decay)[:, :, None] + v[..., None] * k[:, :, None]
        return self.normed(y), after


@pytest.mark.parametrize("rank", [8, 13, 320])
@pytest.mark.parametrize("dtype", PLANES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_heads_of_rwkv6_decay_by_what_the_token_says(
    shape: tuple[int, int, int], dtype: str, rank: int
) -> None:
    case = Heads6(shape, rank, dtype)
    reading, after = case.expected()
    assert_close(case.run(), reading.reshape(case.row["r"].shape) * case.row["gate"], absolute=SUMS)
    case.check_states(after)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_heads_of_rwkv5_decay_always_alike_and_may_have_no_gate(
    shape: tuple[int, int, int],
) -> None:
    case = Heads6(shape, 0)
    reading, after = case.expected()
    assert_close(case.run(gate=None), reading.reshape(case.row["r"].shape), absolute=SUMS)
    case.check_states(after)


class Heads7(Heads):
    """A random case of head7."""

    tokens = ("r", "k", "v", "first")
    vectors = ("w0", "a0", "v0", "k_k", "k_a", "r_k", "norm_weight", "norm_bias")

    def __init__(self, shape: tuple[int, int, int], ranks: tuple[int, ...], dtype: str) -> None:
        super().__init__(shape)
        size = shape[2]
        self.row["k"][0, :size] = 0  # a head whose removal key has no direction
        self.row["k"][-1, -size:] *= np.float32(1e-6)  # and one whose key is short, but has one
        self.up = [self.factor(rank, dtype) for rank in ranks]
        self.first = self.row["first"].copy()

    def run(self, part: slice = slice(None), *, first_layer: bool = False) -> Floats:
        size = self.shape[2]
        shared = shared_bytes(4 * 4 * (4 * size // 32) * size, *[4 * size] * 11)
        ups = [{**field, "low": field["low"][part]} for field, _ in self.up]
        fields: dict[str, Any] = {"up": ups}
        self.row["first"][:] = np.nan if first_layer else self.first
        if first_layer:
            ups[2] = {}
            fields["v0"] = None
        return self.start("head7", "Head7Arguments", shared, part, fields)

    def expected(self, *, first_layer: bool = False) -> tuple[Wide, Wide]:
        """What the output matrix reads, and the states."""
        decay, rate, share, gate = (self.by_head(product) for _, product in self.up)
        vector = {name: self.by_head(array) for name, array in self.vector.items()}
        r, k, v = (self.by_head(self.row[name]) for name in "rkv")
        if not first_layer:
            v = v + (self.by_head(self.first) - v) * sigmoid(vector["v0"] + share)
        w = np.exp(-np.exp(-0.5) * sigmoid(vector["w0"] + decay))
        rate = sigmoid(vector["a0"] + rate)
        kappa = k * vector["k_k"]
        kappa = kappa / np.maximum(np.sqrt((kappa**2).sum(2, keepdims=True)), 1e-12)
        k = k * (1 + (rate - 1) * vector["k_a"])
        state = self.matrices(self.before)
        gone = np.einsum("bhij,bhj->bhi", state, -kappa)
        state = state * w[:, :, None] + gone[..., None] * (kappa * rate)[:, :, None]
        state = state + v[..., None] * k[:, :, None]
        y = self.normed(np.einsum("bhij,bhj->bhi", state, r))
        y = y + (r * k * vector["r_k"]).sum(2, keepdims=True) * v
        return (y * gate).reshape(len(y), -1), state


@pytest.mark.parametrize("ranks", [(8, 40, 24, 320), (40, 8, 13, 32)], ids=str)
@pytest.mark.parametrize("dtype", PLANES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_heads_of_rwkv7_follow_the_paper(
    shape: tuple[int, int, int], dtype: str, ranks: tuple[int, ...]
) -> None:
    case = Heads7(shape, ranks, dtype)
    for first_layer in (False, True):
        y, after = case.expected(first_layer=first_layer)
        # The bonus is a sum as the reading is.
        assert_close(case.run(first_layer=first_layer), y, absolute=2 * SUMS)
        case.check_states(after)
        values = case.row["v"] if first_layer else case.first
        assert np.array_equal(case.row["first"], values)


def test_a_sequence_is_the_same_bits_beside_every_neighbour() -> None:
    six, seven = Heads6((8, 3, 64), 24, "fp16"), Heads7((8, 3, 64), (8, 40, 24, 320), "bf16")
    for case in (six, seven):
        whole, after = case.run().copy(), [state.copy() for state in case.after]
        for start in range(8):
            part = slice(start, start + 1)
            assert np.array_equal(case.run(part), whole[part])
            assert np.array_equal(case.after[start], after[start], equal_nan=True)
