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
# Groups that are quantized at a time: a processor wants them in its cache, a card wants many.
_ON_CPU, _ON_CARD = 1 << 12, 1 << 18


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
    at_once = _ON_CPU if matrix.device.type == "cpu" else _ON_CARD
    step = max(1, at_once * GROUP // inputs)
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
    """Choose the scale whose steps fit best: pairs of codes (..., 16) uint8 and scales (...).

    For each trial the steps are looked up by the whole part of a number, which is near enough to
    tell good trials from bad ones: what the best scale for some steps takes off the squared error
    is along^2 / length.
    """
    book = torch.tensor(CODEBOOK, dtype=torch.float32, device=groups.device)
    edges = (book[1:] + book[:-1]) / 2
    units = torch.arange(-128, 128, dtype=torch.float32, device=groups.device) + 0.5
    step_of = book[torch.bucketize(units, edges)]
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    inverse = torch.where(largest == 0, 0.0, 1 / largest)
    best, scale = torch.zeros_like(largest), torch.zeros_like(largest)
    for as_units in _TRIES:
        whole = (groups * (inverse * as_units)).floor().clamp(-128, 127)
        steps = step_of.index_select(0, (whole + 128).int().flatten()).view_as(groups)
        along = (groups * steps).sum(-1, keepdim=True)
        length = (steps * steps).sum(-1, keepdim=True)
        taken = along * along / length
        better = taken > best
        best = torch.where(better, taken, best)
        scale = torch.where(better, along / length, scale)
    codes, scale = _refined(groups, scale, book, edges)
    pairs = grouped(codes.to(torch.uint8), 2)
    return pairs[..., 0] | pairs[..., 1] << 4, scale.squeeze(-1)


def _refined(
    groups: torch.Tensor, scale: torch.Tensor, book: torch.Tensor, edges: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give each number the nearest code, and once more under the scale that suits those codes."""
    for _ in range(2):
        half = scale.half()
        inverse = torch.where(half == 0, 0.0, 1 / half.float())
        codes = torch.bucketize(groups * inverse, edges)
        steps = book[codes]
        scale = (groups * steps).sum(-1, keepdim=True) / (steps * steps).sum(-1, keepdim=True)
    return codes, half
