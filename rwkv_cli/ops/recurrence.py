"""The recurrences over time, in float32; every state argument is advanced in place.

`state[b, h, i, j]`: i is the value channel, j the key channel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

# Steps of wkv7 solved at once: decays are at least 0.545, so that their product stays above 3e-9
# and its inverse far from overflow; every term keeps its relative precision.
_CHUNK = 32


def wkv4(
    log_w: torch.Tensor,
    u: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    sums: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Average the values by exponentially decaying weights (RWKV-4, arXiv:2305.13048, eq. 16 and
    appendix D).

    Args:
        log_w: (A,) logarithm of the decay, at most 0.
        u: (A,) bonus of the current token.
        k: (B, T, A) keys.
        v: (B, T, A) values.
        sums: Numerator, denominator and largest exponent so far, each (B, A), advanced in place.
            Both sums are kept divided by exp(exponent), so that no key overflows.

    Returns:
        (B, T, A)
    """
    numerator, denominator, exponent = sums
    out = torch.empty_like(v)
    for t in range(k.shape[1]):
        key, value = k[:, t], v[:, t]
        top = torch.maximum(exponent, u + key)
        past, now = (exponent - top).exp(), (u + key - top).exp()
        out[:, t] = (past * numerator + now * value) / (past * denominator + now)
        top = torch.maximum(exponent + log_w, key)
        past, now = (exponent + log_w - top).exp(), (key - top).exp()
        numerator.mul_(past).add_(now * value)
        denominator.mul_(past).add_(now)
        exponent.copy_(top)
    return out


def wkv6(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    u: torch.Tensor,
    state: torch.Tensor,
) -> torch.Tensor:
    """Read from and add to a decaying matrix of outer products (arXiv:2404.05892, eq. 7 and 17).

    Args:
        r: (B, T, H, N) receptance.
        w: Decay in (0, 1), broadcastable to (B, T, H, N): constant in time for v5.
        k: (B, T, H, N) keys.
        v: (B, T, H, N) values.
        u: (H, N) bonus of the current token.
        state: (B, H, N, N), advanced in place.

    Returns:
        (B, T, H, N)
    """
    w = w.expand_as(k)
    bonus = (r * u * k).sum(-1, keepdim=True) * v
    out = torch.empty_like(v)
    for t in range(k.shape[1]):
        out[:, t] = (state @ r[:, t].unsqueeze(-1)).squeeze(-1)
        state.mul_(w[:, t].unsqueeze(-2)).add_(v[:, t].unsqueeze(-1) * k[:, t].unsqueeze(-2))
    return out + bonus


def wkv7(
    r: torch.Tensor,
    log_w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    state: torch.Tensor,
) -> torch.Tensor:
    """Apply the generalized delta rule S = S (diag(w) + a b^T) + v k^T, y = S r (arXiv:2503.14456,
    eq. 17).

    Few steps run one by one; more are solved a chunk at a time (see `_wkv7_chunk`).

    Args:
        r: (B, T, H, N) receptance.
        log_w: (B, T, H, N) logarithm of the decay, in (-0.607, 0).
        k: (B, T, H, N) keys.
        v: (B, T, H, N) values.
        a: (B, T, H, N) removal keys.
        b: (B, T, H, N) replacement keys.
        state: (B, H, N, N), advanced in place.

    Returns:
        (B, T, H, N)
    """
    time = r.shape[1]
    if time < _CHUNK:
        return _wkv7_steps(r, log_w.exp(), k, v, a, b, state)
    # Idle steps fill the last chunk: they fade nothing, add nothing, and a gradient passes them.
    idle = -time % _CHUNK
    r, log_w, k, v, a, b = (F.pad(x, (0, 0, 0, 0, 0, idle)) for x in (r, log_w, k, v, a, b))
    return _wkv7_chunks(r, log_w, k, v, a, b, state)[:, :time]


def _wkv7_steps(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    state: torch.Tensor,
) -> torch.Tensor:
    """Run the recurrence as it is written; all (B, T, H, N), state (B, H, N, N)
    advanced in place.
    """
    current = state.clone()  # a gradient may need the state as it was
    out = []
    for t in range(r.shape[1]):
        removed = current @ a[:, t].unsqueeze(-1)
        current = (
            current * w[:, t].unsqueeze(-2)
            + removed * b[:, t].unsqueeze(-2)
            + v[:, t].unsqueeze(-1) * k[:, t].unsqueeze(-2)
        )
        out.append((current @ r[:, t].unsqueeze(-1)).squeeze(-1))
    state.copy_(current.detach())
    return torch.stack(out, dim=1)


def _wkv7_chunks(
    r: torch.Tensor,
    log_w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    state: torch.Tensor,
) -> torch.Tensor:
    """Solve the recurrence chunk by chunk; all (B, T, H, N) with T a multiple of the chunk.

    With W_t the product of the decays up to t, the state divided by W_t only ever adds outer
    products. Its reads u_t = S_{t-1} a_t then obey the unit-triangular system (I - strict(A B^T))
    U = A S_0^T + strict(A K^T) V over a chunk, where A = a W_{t-1}, B = b / W_t, K = k / W_t, R =
    r W_t; everything else is a matrix product.
    """
    batch, time, heads, size = r.shape
    shape = (batch, time // _CHUNK, _CHUNK, heads, size)
    r, log_w, k, v, a, b = (x.reshape(shape).transpose(2, 3) for x in (r, log_w, k, v, a, b))
    log_total = log_w.cumsum(-2)
    growth = (-log_total).exp()
    reads, removals = r * log_total.exp(), a * (log_total - log_w).exp()
    keys, replacements = (k * growth).mT, (b * growth).mT
    last = log_total[..., -1:, :].exp()
    strict = (removals @ replacements).tril(-1)
    eye = torch.eye(_CHUNK, dtype=r.dtype, device=r.device)
    solved = torch.linalg.solve_triangular(
        eye - strict,
        torch.cat((removals, (removals @ keys).tril(-1) @ v), dim=-1),
        upper=False,
        unitriangular=True,
    )
    from_state, from_values = solved.split(size, dim=-1)
    read_removed, read_values = (reads @ replacements).tril(), (reads @ keys).tril() @ v
    # unbind, not indexing: the gradient of an index is a zero tensor of the whole size, one a chunk
    chunks = zip(
        *(x.unbind(1) for x in (reads, from_state, from_values, read_removed, read_values)),
        *(x.unbind(1) for x in (replacements, keys @ v, last)),
        strict=True,
    )
    current, out = state.clone(), []
    for read, by_state, by_values, back, direct, replace, added, decay in chunks:
        removed = by_state @ current.mT + by_values  # (B, H, chunk, N): rows u_t
        out.append(read @ current.mT + back @ removed + direct)
        current = (
            current + (replace @ removed + added).mT
        ) * decay  # outer products are (key, value)
    state.copy_(current.detach())
    return torch.stack(out, dim=1).transpose(2, 3).reshape(batch, time, heads, size)
