"""The recurrences against the same sums written out in float64, at every length and decay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rwkv_cli import ops
from rwkv_cli.ops import recurrence

BATCH, HEADS, SIZE = 2, 3, 8
LENGTHS = (1, 2, 15, 16, 17, 32, 33, 64, 65, 200)
SLOWEST, FASTEST = -1e-8, -np.exp(-0.5)  # RWKV-7's logarithms of decays lie between

Tensor = torch.Tensor


def _inputs(time: int, decay: float | None = None, seed: int = 0) -> list[Tensor]:
    """Draw r, log_w, k, v, a, b as RWKV-7 makes them: a of unit length, b along -a."""
    torch.manual_seed(seed)
    r, k, v, a = (torch.randn(BATCH, time, HEADS, SIZE) for _ in range(4))
    log_w = FASTEST * torch.randn(BATCH, time, HEADS, SIZE).mul(3).sigmoid()
    if decay is not None:
        log_w = torch.full_like(log_w, decay)
    a = -torch.nn.functional.normalize(a, dim=-1)
    return [r, log_w, k, v, a, -a * torch.rand_like(a)]


def _wkv7_exact(inputs: list[Tensor], state: Tensor) -> tuple[np.ndarray, np.ndarray]:
    r, log_w, k, v, a, b = (x.double().numpy() for x in inputs)
    state, out = state.double().numpy(), np.empty(v.shape)
    for t in range(v.shape[1]):
        removed = np.einsum("bhij,bhj->bhi", state, a[:, t])
        state = state * np.exp(log_w[:, t])[:, :, None, :]
        state = state + removed[..., None] * b[:, t][:, :, None, :]
        state = state + v[:, t][..., None] * k[:, t][:, :, None, :]
        out[:, t] = np.einsum("bhij,bhj->bhi", state, r[:, t])
    return out, state


def _near(actual: Tensor, exact: np.ndarray, tolerance: float = 1e-5) -> bool:
    return bool(np.linalg.norm(actual.numpy() - exact) <= tolerance * np.linalg.norm(exact))


@pytest.mark.parametrize("decay", [None, SLOWEST, FASTEST])
@pytest.mark.parametrize("time", LENGTHS)
def test_wkv7_equals_its_definition(time: int, decay: float | None) -> None:
    inputs, state = _inputs(time, decay), torch.randn(BATCH, HEADS, SIZE, SIZE)
    exact, last = _wkv7_exact(inputs, state)
    out = ops.wkv7(*inputs, state)
    assert _near(out, exact)
    assert _near(state, last)


def test_wkv7_keeps_its_precision_where_neighbors_decay_differently() -> None:
    inputs = _inputs(128)
    inputs[1][..., ::2], inputs[1][..., 1::2] = SLOWEST, float(FASTEST)
    inputs[1][:, ::3] = float(FASTEST)
    state = torch.randn(BATCH, HEADS, SIZE, SIZE) * 1e3
    exact, last = _wkv7_exact(inputs, state)
    assert _near(ops.wkv7(*inputs, state), exact)
    assert _near(state, last)


@pytest.mark.parametrize("time", [16, 33, 128])
@pytest.mark.parametrize("decay", [None, SLOWEST, FASTEST])
def test_gradients_of_wkv7_in_chunks_equal_stepwise_ones(time: int, decay: float | None) -> None:
    gradients = []
    for run in (ops.wkv7, _stepwise):
        inputs = [x.requires_grad_() for x in _inputs(time, decay)]
        run(*inputs, torch.zeros(BATCH, HEADS, SIZE, SIZE)).square().sum().backward()
        gradients.append([x.grad for x in inputs])
    for chunked, stepwise in zip(*gradients, strict=True):
        assert chunked.isfinite().all()
        assert _near(chunked, stepwise.numpy(), 1e-4)


def _stepwise(r: Tensor, log_w: Tensor, *rest: Tensor) -> Tensor:
    return recurrence._wkv7_steps(r, log_w.exp(), *rest)


@pytest.mark.parametrize("decay", [0.0, 1e-30, 0.5, 1.0, None])
def test_wkv6_equals_its_definition(decay: float | None) -> None:
    torch.manual_seed(1)
    r, k, v, w = (torch.randn(BATCH, 40, HEADS, SIZE) for _ in range(4))
    w = w.sigmoid() if decay is None else torch.full_like(w, decay)
    u, state = torch.randn(HEADS, SIZE), torch.randn(BATCH, HEADS, SIZE, SIZE)
    exact, memory = np.empty(v.shape), state.double().numpy()
    for t in range(40):
        present = v[:, t, :, :, None].double().numpy() * k[:, t, :, None].double().numpy()
        seen = memory + u.double().numpy()[:, None] * present
        exact[:, t] = (seen * r[:, t, :, None].double().numpy()).sum(-1)
        memory = memory * w[:, t, :, None].double().numpy() + present
    assert _near(ops.wkv6(r, w, k, v, u, state), exact)
    assert _near(state, memory)


@pytest.mark.parametrize("size_of_keys", [1.0, 80.0, 1e4])
@pytest.mark.parametrize("log_w", [-1e-6, -1.0, -1e4])
def test_wkv4_equals_its_definition_however_large_the_keys(
    size_of_keys: float, log_w: float
) -> None:
    torch.manual_seed(2)
    k, v = torch.randn(BATCH, 30, SIZE) * size_of_keys, torch.randn(BATCH, 30, SIZE)
    u = torch.randn(SIZE)
    sums = (torch.zeros(BATCH, SIZE), torch.zeros(BATCH, SIZE), torch.full((BATCH, SIZE), -1e30))
    out = ops.wkv4(torch.full((SIZE,), log_w), u, k, v, sums)
    for t in range(30):
        ages = torch.arange(t - 1, -1, -1.0, dtype=torch.float64)
        past = k[:, :t].double() + log_w * ages[:, None]
        exponents = torch.cat((past, (u + k[:, t]).double()[:, None]), dim=1)
        exact = (exponents.softmax(1) * v[:, : t + 1].double()).sum(1)
        assert _near(out[:, t], exact.numpy(), 1e-3 if size_of_keys > 100 else 1e-5)


def test_zero_vector_keeps_its_direction_to_itself() -> None:
    assert not ops.normalize(torch.zeros(2, 3)).any()
