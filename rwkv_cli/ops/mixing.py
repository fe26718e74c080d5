"""Normalizations, activations and the token shift, all in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Normalize the last axis of x (..., C); epsilon 1e-5, torch's default and
    every checkpoint's.
    """
    return F.layer_norm(x, weight.shape, weight, bias, eps=1e-5)


def group_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """Normalize each head of x (B, T, H, N), then scale its channels: (B, T, H * N)."""
    batch, time, heads, size = x.shape
    flat = x.reshape(batch * time, heads * size)
    return F.group_norm(flat, heads, weight, bias, eps=eps).view(batch, time, heads * size)


def normalize(x: torch.Tensor) -> torch.Tensor:
    """Scale the last axis of x to unit length; a zero vector stays zero (epsilon 1e-12)."""
    return F.normalize(x, dim=-1, p=2.0, eps=1e-12)


def silu(x: torch.Tensor) -> torch.Tensor:
    """Multiply x by its own sigmoid."""
    return F.silu(x)


def squared_relu(x: torch.Tensor) -> torch.Tensor:
    """Square what is positive, and nothing else; a product, since torch's power is slower."""
    positive = x.relu()
    return positive * positive


def token_shift(x: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Give the input of one step earlier, (B, T, C), for x (B, T, C); `last` (B, C) is advanced in
    place.
    """
    previous = torch.cat((last.unsqueeze(1), x[:, :-1]), dim=1)
    last.copy_(x[:, -1].detach())
    return previous


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Part the last axis of x (..., H * N) into heads: (..., H, N)."""
    return x.view(*x.shape[:-1], heads, -1)
