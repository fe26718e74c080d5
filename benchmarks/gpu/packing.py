"""Packs matrices on the card, as native/src/formats.h has them, by plain rounding."""

from __future__ import annotations

import torch

_GROUP, _PANEL, _ROWS, _COLS = 32, 128, 16, 64
_CODEBOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def packed_rows(matrix: torch.Tensor, dtype: str) -> torch.Tensor:
    """Pack (rows, cols) into blocks of 16 rows and 64 columns: flat uint8."""
    rows, cols = matrix.shape
    missing = (0, -cols % _COLS, 0, -rows % _ROWS)
    whole = torch.nn.functional.pad(matrix.float(), missing)
    down, across = whole.shape[0] // _ROWS, whole.shape[1] // _COLS
    groups = whole.view(down, _ROWS, across, 2, _GROUP)
    codes, scales = _coded(groups, dtype)
    head = scales.permute(0, 2, 3, 1).contiguous().view(down, across, -1)
    if dtype == "int8":  # [16 fours of columns][16 rows][4]
        body = (codes + 128).to(torch.uint8).view(down, _ROWS, across, 16, 4)
        body = body.permute(0, 2, 3, 1, 4)
    else:  # [2 halves][4 fours of columns][16 rows][4], two columns a byte
        split = codes.to(torch.uint8).view(down, _ROWS, across, 2, 2, 4, 4)
        body = (split[:, :, :, :, 0] | split[:, :, :, :, 1] << 4).permute(0, 2, 3, 4, 1, 5)
    parts = [head.view(torch.uint8), body.reshape(down, across, -1)]
    return torch.cat(parts, 2).reshape(-1)


def packed_panels(matrix: torch.Tensor, dtype: str) -> torch.Tensor:
    """Pack (rows, cols) into panels of 128 outputs, input by input: flat uint8."""
    panels = []
    for first in range(0, len(matrix), _PANEL):
        part = matrix[first : first + _PANEL].float()
        lines = torch.nn.functional.pad(part, (0, 0, 0, -len(part) % _GROUP)).t().contiguous()
        codes, scales = _coded(lines.view(len(lines), -1, _GROUP), dtype)
        if dtype == "int8":
            body = codes.to(torch.int8).view(torch.uint8)
        else:
            split = codes.to(torch.uint8)
            body = split[..., :16] | split[..., 16:] << 4
        whole = torch.cat([body.reshape(-1), scales.view(torch.uint8).reshape(-1)])
        panels.append(torch.nn.functional.pad(whole, (0, -len(whole) % 64)))
    return torch.cat(panels)


def _coded(groups: torch.Tensor, dtype: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Round groups of 32 (..., 32): their codes, and scales (...) float16."""
    most = groups.abs().amax(-1)
    book = torch.tensor(_CODEBOOK, dtype=torch.float32, device=groups.device)
    scales = (most / (127 if dtype == "int8" else 113)).clamp(min=6e-8).half()
    units = groups / scales.float().unsqueeze(-1)
    if dtype == "int8":
        return units.round().clamp(-127, 127).to(torch.int16), scales
    return torch.bucketize(units, (book[1:] + book[:-1]) / 2), scales
