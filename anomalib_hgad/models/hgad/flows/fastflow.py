# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Two-dimensional normalizing flow of feature maps (FastFlow, Sec. 3.3): the couplings are convolutions.

A latent vector then depends on the features around its position, not on the position. log |det J| of the flow of a map
is the sum of the log-scales of all channels and positions; the part of a position is the sum over its channels.

Dimensions: B images, D channels (D1 passive, D2 active), H x W grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from anomalib.models.components.flow import AllInOneBlock
from FrEIA.framework import SequenceINN
from torch import nn

from anomalib_hgad.common.checks import check_range
from anomalib_hgad.common.precision import full_precision
from anomalib_hgad.models.hgad.flows.base import FeatureFlow, zero_layer
from anomalib_hgad.models.hgad.flows.coupling import SUBNET_FACTOR, affine


class FastFlow(FeatureFlow):
    """FastFlow's flow of one feature level.

    Args:
        dim: D, at least 2.
        coupling_blocks: Number of coupling blocks, the paper's flow steps, at least 1.
        clamp_alpha: Clamp of the log-scales, alpha * tanh(s), above 0.
        kernel_sizes: Odd widths of the convolutions, which the blocks use in turn.
        hidden_ratio: Hidden channels of a coupling relative to D1, its passive channels.

    Raises:
        ValueError: If an argument is out of range.
    """

    needs_half_precision = True

    def __init__(
        self,
        dim: int,
        coupling_blocks: int = 8,
        clamp_alpha: float = 2.0,
        kernel_sizes: Sequence[int] = (3, 1),
        hidden_ratio: float = 1.0,
    ) -> None:
        super().__init__(dim)
        check_range("0 < {} < inf", coupling_blocks=coupling_blocks, clamp_alpha=clamp_alpha)
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            msg = f"A convolution is centred on its position: expected odd kernel_sizes >= 1, got {list(kernel_sizes)}."
            raise ValueError(msg)
        hidden = int((dim - dim // 2) * hidden_ratio)
        if hidden < 1:
            msg = f"hidden_ratio={hidden_ratio} leaves a coupling of {dim} channels without hidden channels. Raise it."
            raise ValueError(msg)
        self.blocks = SequenceINN(dim, 1, 1)  # for any grid: FrEIA only checks the number of axes
        for index in range(coupling_blocks):
            self.blocks.append(
                AllInOneBlock,
                subnet_constructor=_Subnet(kernel_sizes[index % len(kernel_sizes)], hidden),
                affine_clamping=clamp_alpha,
                permute_soft=False,
            )

    def start_as_rotation(self) -> None:
        """Initialise every block as its fixed permutation."""
        for block in self.blocks.module_list:
            zero_layer(block.subnet[-1])

    def transform(self, x: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Map whitened vectors to latents, as :meth:`FeatureFlow.transform`, given the grid of the context."""
        maps, parts = self.with_vectors(context, x), []
        for block in self.blocks.module_list:
            maps, log_det = couple_maps(maps, block)
            parts.append(log_det.flatten(1))
        return self.vectors(maps), parts

    def inverse_transform(self, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Map latents back, as :meth:`FeatureFlow.inverse_transform`, given the grid of the context."""
        maps, _ = self.blocks(self.with_vectors(context, z), rev=True)
        return self.vectors(maps)


def couple_maps(maps: torch.Tensor, block: AllInOneBlock) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a block to feature maps; :class:`AllInOneBlock` itself returns one log-determinant for a whole map.

    Args:
        maps: Feature maps, shape (B, D, H, W).
        block: The block.

    Returns:
        Feature maps of the same shape, and each position's contribution to log |det J| in nats, shape (B, H, W).
    """
    passive, active = maps.split(block.splits, dim=1)
    active, log_det = affine(active, SUBNET_FACTOR * full_precision(block.subnet(passive)), block.clamp, dim=1)
    scale = block.global_scale_activation(block.global_scale)
    outputs = torch.cat((passive, active.to(passive)), dim=1) * scale + block.global_offset
    return block.permute_function(outputs, block.w_perm), log_det + scale.log().sum()


class _Subnet:
    """Makes the network of a coupling: convolution, ReLU, convolution."""

    def __init__(self, kernel_size: int, hidden: int) -> None:
        self.kernel_size = kernel_size
        self.hidden = hidden

    def __call__(self, in_channels: int, out_channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_channels, self.hidden, self.kernel_size, padding="same"),
            nn.ReLU(),
            nn.Conv2d(self.hidden, out_channels, self.kernel_size, padding="same"),
        )
