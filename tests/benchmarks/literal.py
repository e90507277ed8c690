# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""The paper's formulas, literally: what the package's training step is measured against.

The position code is concatenated to every row, distances are tensors of differences (N, K, D) and (N, M, D), and every
level takes a step of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch.nn import functional as F

from anomalib_hgad.models.hgad.flows import ConditionalFlow
from anomalib_hgad.models.hgad.flows.position import position_code
from anomalib_hgad.models.hgad.prior import HierarchicalGaussianMixture


def literal_latents(flow: ConditionalFlow, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """z, shape (N, D), and log |det J|, shape (N,), by the blocks' own forward pass."""
    batch, _, height, width = features.shape
    rows = rearrange(features, "b d h w -> (b h w) d")
    code = position_code(flow.condition_dim, height, width, like=rows).of_positions().repeat(batch, 1)
    z, log_det = flow.blocks(rows, [code])
    return z, log_det


def literal_loss(
    prior: HierarchicalGaussianMixture, z: torch.Tensor, log_det: torch.Tensor, class_index: torch.Tensor
) -> torch.Tensor:
    """Eq. 11 with lambda_1 = 1 and lambda_2 = 100, and CFLOW-AD's term; a class for each row."""
    dim, num_classes = z.shape[1], len(prior.class_logits)
    log_priors = prior.class_logits.log_softmax(dim=0)
    energies = -0.5 * (z.unsqueeze(1) - prior.class_centers).square().sum(dim=-1)
    inter = -(torch.logsumexp(energies + log_priors, dim=-1) + log_det) / dim
    smoothed = 0.98 * F.one_hot(class_index, num_classes).to(z) + 0.02 / num_classes
    gains = (energies + log_priors.detach()).log_softmax(dim=-1) - log_priors.detach()
    mutual_information = -(smoothed * gains).sum(dim=-1)
    entropy = -(energies.softmax(dim=-1) * energies.log_softmax(dim=-1)).sum(dim=-1)
    main = prior.class_centers.detach()[class_index]
    offsets = F.pad(prior.center_offsets, (0, 0, 1, 0))[class_index]
    distances = (z.unsqueeze(1) - (main.unsqueeze(1) + offsets)).square().sum(dim=-1)
    log_weights = prior.center_logits[class_index].log_softmax(dim=-1)
    own = torch.logsumexp(-0.5 * distances + log_weights, dim=-1) + log_det
    likelihood = -F.logsigmoid(own / dim - 0.5 * math.log(2 * math.pi))
    return (inter + 100 * mutual_information + entropy - own / dim + likelihood).mean()


def literal_step(
    flows: Sequence[ConditionalFlow],
    priors: Sequence[HierarchicalGaussianMixture],
    optimizer: torch.optim.Optimizer,
    features: Sequence[torch.Tensor],
    class_index: torch.Tensor,
) -> list[torch.Tensor]:
    """Level by level: loss, gradients, step. Give the losses."""
    losses = []
    for flow, prior, level in zip(flows, priors, features, strict=True):
        rows = class_index.repeat_interleave(level.shape[2] * level.shape[3])
        loss = literal_loss(prior, *literal_latents(flow, level), rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses
