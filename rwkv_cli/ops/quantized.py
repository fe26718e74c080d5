"""Matrices of 8 and 4 bits on torch: groups of 32 weights along the inputs share a float16 scale.

A weight of 8 bits is code * scale with |code| <= 127; one of 4 bits is a step of a codebook, fine
around zero, times a scale that may be negative. Both are the formats of the native engine
(native/src/formats.h), laid out for torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

GROUP = 32
CODEBOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

# What a group's largest number is tried as, in steps of the codebook, on either end of it.
_TRIES = (-116, -121, -127, -132, -138, -144, -151, 100, 104, 108, 113, 118, 124, 131)
_AT_ONCE = 1 << 18  # groups that are quantized at a time: their trials take tens of megabytes


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix (O, I) of few bits.

    Attributes:
        codes: (O, I) int8; or (O, I / 2) uint8 of two codes each, the even input in the low half.
        scales: (O, I / 32) float16.
        dtype: What it is multiplied in where there are tensor cores.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.scales.shape[0], self.scales.shape[1] * GROUP

    def rows(self, begin: int, end: int, dtype: torch.dtype) -> torch.Tensor:
        """Give some rows as floats, (end - begin, I)."""
        codes, scales = self.codes[begin:end], self.scales[begin:end]
        if codes.dtype == torch.uint8:
            book = torch.tensor(CODEBOOK, dtype=dtype, device=codes.device)
            pairs = torch.stack((codes & 15, codes >> 4), dim=-1)
            values = book[pairs.flatten(-2).int()]
        else:
            values = codes.to(dtype)
        return (grouped(values) * scales.to(dtype).unsqueeze(-1)).flatten(-2)

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Quantized:
        """Change both of its tensors, such as by moving them to a device."""
        return Quantized(change(self.codes), change(self.scales), self.dtype)


def grouped(x: torch.Tensor, size: int = GROUP) -> torch.Tensor:
    """Part the last axis into groups: (..., I / size, size)."""
    return x.reshape(*x.shape[:-1], -1, size)


def quantize(matrix: torch.Tensor, bits: int, dtype: torch.dtype) -> Quantized:
    """Quantize a matrix (O, I), I a multiple of 32, a few rows at a time.

    Args:
        matrix: Floats of any precision.
        bits: 8 or 4.
        dtype: What it is to be multiplied in where there are tensor cores.
    """
    outputs, inputs = matrix.shape
    per_byte = 8 // bits
    kind = torch.int8 if bits == 8 else torch.uint8
    codes = torch.empty(outputs, inputs // per_byte, dtype=kind, device=matrix.device)
    scales = torch.empty(outputs, inputs // GROUP, dtype=torch.float16, device=matrix.device)
    step = max(1, _AT_ONCE * GROUP // inputs // (1 if bits == 8 else 8))
    encode = _eight if bits == 8 else _four
    for begin in range(0, outputs, step):
        groups = grouped(matrix[begin : begin + step].float())
        found, scale = encode(groups)
        codes[begin : begin + step] = found.flatten(-2)
        scales[begin : begin + step] = scale
    return Quantized(codes, scales, dtype)


def _eight(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to the nearest of 255 steps: codes (..., 32) int8 and scales (...)."""
    scale = (groups.abs().amax(-1) / 127).half()
    inverse = torch.where(scale == 0, 0.0, 1 / scale.float())
    codes = (groups * inverse.unsqueeze(-1)).round().clamp(-127, 127)
    return codes.to(torch.int8), scale


def _four(groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the scale whose steps fit best: pairs of codes (..., 16) uint8 and scales (...)."""
    book = torch.tensor(CODEBOOK, dtype=torch.float32, device=groups.device)
    edges = (book[1:] + book[:-1]) / 2
    place = groups.abs().argmax(-1, keepdim=True)
    largest = groups.gather(-1, place).squeeze(-1)
    best, kept, chosen = None, torch.zeros_like(largest), torch.zeros_like(groups)
    for units in _TRIES:
        codes = _nearest(groups, largest / units, edges)
        steps = book[codes]
        along, length = (groups * steps).sum(-1), (steps * steps).sum(-1)
        scale = (along / length).half().float()
        codes = _nearest(groups, scale, edges)
        error = (groups - book[codes] * scale.unsqueeze(-1)).square().sum(-1)
        better = error < best if best is not None else torch.ones_like(error, dtype=torch.bool)
        best = error if best is None else torch.where(better, error, best)
        kept = torch.where(better, scale, kept)
        chosen = torch.where(better.unsqueeze(-1), codes, chosen)
    pairs = grouped(chosen.to(torch.uint8), 2)
    return pairs[..., 0] | pairs[..., 1] << 4, kept.half()


def _nearest(groups: torch.Tensor, scale: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Give the index of the step nearest to each number under a scale."""
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    return torch.bucketize(groups * inverse.unsqueeze(-1), edges)
