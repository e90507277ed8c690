# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Flows in a general position: float64, with random parameters and whitening."""

from __future__ import annotations

import torch
from anomalib.models.components.flow import AllInOneBlock
from torch import nn


def randomize(module: nn.Module) -> None:
    """Go to float64 and away from the start. The permutations were rounded to float32: make them orthogonal again."""
    module.double()
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    for block in module.modules():
        if isinstance(block, AllInOneBlock) and block.w_perm.ndim == 2:
            left, _, right = torch.linalg.svd(block.w_perm.data)
            block.w_perm.data = left @ right
            block.w_perm_inv.data = (left @ right).T.contiguous()


def random_covariance(dim: int) -> torch.Tensor:
    """A covariance matrix of full rank, shape (dim, dim)."""
    factor = torch.randn(dim, dim, dtype=torch.float64)
    return factor @ factor.T + 0.1 * torch.eye(dim)
