"""Matrix products of float32 activations with weights of any precision, accumulated in float32.

A half-precision weight is never rounded against a rounded activation on a CPU: its rows are
widened block by block, so that the block stays in the cache and the matrix in memory keeps its own
precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rwkv_cli.ops.quantized import Quantized

_BLOCK = (
    1 << 18
)  # weights widened at a time: 1 MiB of float32, the second-level cache of common cores
_CARD_BLOCK = 1 << 24  # quantized weights that are widened at a time on a card: enough to fill it


def linear(x: torch.Tensor, weight: torch.Tensor | Quantized) -> torch.Tensor:
    """Multiply (..., I) float32 by the transpose of a weight (O, I): (..., O) float32."""
    if isinstance(weight, Quantized):
        return _quantized_product(x, weight)
    if weight.dtype == torch.float32:
        return F.linear(x, weight)
    if x.is_cuda:
        return _half_product(x, weight.t())
    out = x.new_empty(*x.shape[:-1], weight.shape[0])
    rows = min(weight.shape[0], max(1, _BLOCK // weight.shape[1]))
    wide = x.new_empty(rows, weight.shape[1])  # one for all blocks: fresh memory costs page faults
    for start in range(0, weight.shape[0], rows):
        block = weight[start : start + rows]
        widened = wide[: len(block)].copy_(block)
        out[..., start : start + rows] = F.linear(x, widened)
    return out


def project(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply (..., I) float32 by a low-rank factor stored as (I, O): (..., O) float32."""
    if weight.dtype == torch.float32:
        return x @ weight
    if x.is_cuda:
        return _half_product(x, weight)
    return x @ weight.float()


def _quantized_product(x: torch.Tensor, weight: Quantized) -> torch.Tensor:
    """Multiply (..., I) by the transpose of a weight of few bits, some rows of it at a time."""
    outputs, inputs = weight.shape
    half = x.is_cuda and weight.dtype != torch.float32
    size = _BLOCK if x.device.type == "cpu" else _CARD_BLOCK
    step = min(outputs, max(1, size // inputs))
    out = x.new_empty(*x.shape[:-1], outputs)
    for begin in range(0, outputs, step):
        end = min(outputs, begin + step)
        block = weight.rows(begin, end, weight.dtype if half else torch.float32)
        part = _half_product(x, block.t()) if half else F.linear(x, block)
        out[..., begin:end] = part
    return out


def _half_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply (..., I) by a half-precision (I, O) on tensor cores, without overflow: (..., O)
    float32.

    Each row is scaled to at most 1 before it is rounded to half, and the sum leaves in float32, so
    the values that make fp16 overflow elsewhere (relu(k)^2, the residual of deep layers) keep
    their range.
    """
    rows = x.reshape(-1, x.shape[-1])
    scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    half = (rows / scale).to(weight.dtype)
    product = torch.mm(half, weight, out_dtype=torch.float32)
    return (product * scale).reshape(*x.shape[:-1], weight.shape[1])
