# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Sine/cosine code p of the positions of a grid (CFLOW-AD).

anomalib's ``positional_encoding_2d`` gives the same numbers, but its exported graph multiplies integers with
floating-point numbers, which ONNX does not allow.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class PositionCode(NamedTuple):
    """Code of an H x W grid, whose halves encode the column and the row.

    Attributes:
        columns: First half of p, the same in all rows, shape (W, P/2).
        rows: Second half of p, the same in all columns, shape (H, P/2).
    """

    columns: torch.Tensor
    rows: torch.Tensor

    def of_positions(self) -> torch.Tensor:
        """p of every position, row by row, shape (H*W, P)."""
        height, width = len(self.rows), len(self.columns)
        columns, rows = self.columns.unsqueeze(0), self.rows.unsqueeze(1)
        return torch.cat((columns.expand(height, -1, -1), rows.expand(-1, width, -1)), dim=-1).flatten(0, 1)


def position_code(condition_dim: int, height: int, width: int, like: torch.Tensor) -> PositionCode:
    """Compute the code of a grid.

    Args:
        condition_dim: P, a multiple of 4: a sine and a cosine of each of P/4 frequencies for either axis.
        height: H.
        width: W.
        like: Tensor whose device and dtype the code takes.

    Returns:
        The code.
    """
    half = condition_dim // 2
    frequencies = torch.exp(torch.arange(0, half, 2, device=like.device, dtype=torch.float32) * -(math.log(1e4) / half))

    def code(length: int) -> torch.Tensor:
        angles = torch.arange(length, device=like.device).to(torch.float32).unsqueeze(1) * frequencies
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).to(like)

    return PositionCode(columns=code(width), rows=code(height))
