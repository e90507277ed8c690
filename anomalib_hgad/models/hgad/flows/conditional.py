# Copyright (C) 2026 The anomalib-hgad authors
# SPDX-License-Identifier: Apache-2.0

"""Conditional normalizing flow f: features x to latents z = f(x; p), position by position (HGAD, Sec. 3.1; CFLOW-AD).

Features are whitened by constants from the training images; then comes a stack of affine coupling blocks. What a block
does to a feature vector depends on where in the image the vector comes from, told by the sine/cosine code p of its
position.

Dimensions: B images, H x W grid, D feature channels, P length of the position code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from anomalib.models.components.flow import AllInOneBlock
from einops import rearrange
from FrEIA.framework import SequenceINN
from torch import nn

from anomalib_hgad.models.hgad.flows.base import FeatureFlow, Latents, whiten
from anomalib_hgad.models.hgad.flows.coupling import CouplingWeights, couple, coupling_weights
from anomalib_hgad.models.hgad.flows.position import position_code


class FlowWeights(NamedTuple):
    """Parameters of a flow, folded for one grid.

    Attributes:
        whitening: Symmetric W, shape (D, D).
        whitening_bias: -W m, shape (D,).
        whitening_log_det: log det W in nats, scalar.
        blocks: Folded parameters of the coupling blocks.
        clamp_alpha: Clamp of their log-scales.
    """

    whitening: torch.Tensor
    whitening_bias: torch.Tensor
    whitening_log_det: torch.Tensor
    blocks: list[CouplingWeights]
    clamp_alpha: float


def flow_rows(rows: torch.Tensor, weights: FlowWeights) -> tuple[torch.Tensor, torch.Tensor]:
    """Whitening, then the coupling blocks.

    Args:
        rows: Feature vectors x, shape (B, n, D).
        weights: Folded parameters for their positions.

    Returns:
        Latents z, shape (B, n, D), and log |det J|, shape (B, n).
    """
    rows = whiten(rows, weights.whitening, weights.whitening_bias)
    z, log_det = couple(rows, weights.blocks, weights.clamp_alpha)
    return z, log_det + weights.whitening_log_det


def flow_latents(features: torch.Tensor, weights: FlowWeights) -> Latents:
    """:func:`flow_rows` of all positions of a feature map.

    Args:
        features: Feature map x, shape (B, D, H, W).
        weights: Folded parameters for its grid.

    Returns:
        Latents z and log |det J|.
    """
    return Latents(*flow_rows(FeatureFlow.vectors(features), weights), (features.shape[2], features.shape[3]))


class ConditionalFlow(FeatureFlow):
    """Position-wise conditional flow of one feature level.

    Args:
        dim: D, at least 2.
        coupling_blocks: Number of coupling blocks.
        condition_dim: P, a positive multiple of 4.
        clamp_alpha: Clamp of the log-scales.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, dim: int, coupling_blocks: int = 12, condition_dim: int = 256, clamp_alpha: float = 1.9) -> None:
        super().__init__(dim, coupling_blocks)
        if condition_dim < 4 or condition_dim % 4:  # sine and cosine of two axes
            msg = "The position code has a sine and a cosine of two axes: expected condition_dim to be a positive "
            msg += f"multiple of 4, got {condition_dim}."
            raise ValueError(msg)
        self.condition_dim = condition_dim
        self.blocks = SequenceINN(dim)
        for _ in range(coupling_blocks):
            self.blocks.append(
                AllInOneBlock,
                cond=0,
                cond_shape=(condition_dim,),
                subnet_constructor=_subnet,
                affine_clamping=clamp_alpha,
                global_affine_type="SOFTPLUS",
                permute_soft=True,
            )

    def folded_weights(self, height: int, width: int) -> FlowWeights:
        """Fold the parameters for a grid, differentiably.

        Args:
            height: H.
            width: W.

        Returns:
            The folded parameters.
        """
        code = position_code(self.condition_dim, height, width, like=self.feature_mean)
        blocks = [coupling_weights(block, code) for block in self._blocks]
        clamp_alpha = self._blocks[0].clamp
        return FlowWeights(self.whitening, self.whitening_bias, self.whitening_log_det, blocks, clamp_alpha)

    @property
    def _blocks(self) -> list[AllInOneBlock]:
        return list(self.blocks.module_list)

    def forward(self, features: torch.Tensor) -> Latents:
        """Map features to latents, as :meth:`FeatureFlow.forward`."""
        return flow_latents(features, self.folded_weights(*features.shape[2:]))

    def some_latents(
        self, features: torch.Tensor, share: float, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents of some positions, as :meth:`FeatureFlow.some_latents`."""
        rows, weights = self.vectors(features), self.folded_weights(*features.shape[2:])
        drawn = max(1, round(share * rows.shape[1]))
        if drawn < rows.shape[1]:
            positions = torch.randperm(rows.shape[1], generator=generator)[:drawn].to(rows.device)
            blocks = [block._replace(position_bias=block.position_bias[positions]) for block in weights.blocks]
            rows, weights = rows[:, positions], weights._replace(blocks=blocks)
        return flow_rows(rows, weights)

    def inverse(self, z: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Map latents back to features, as :meth:`FeatureFlow.inverse`; of the features the grid alone counts."""
        height, width = features.shape[2:]
        code = position_code(self.condition_dim, height, width, like=z).of_positions().repeat(z.shape[0], 1)
        rows, _ = self.blocks(z.flatten(0, 1), [code], rev=True)
        return rearrange(self.unwhiten(rows), "(b h w) d -> b d h w", h=height, w=width)

    def folded(self, height: int, width: int) -> FoldedFlow:
        """The flow for inference on one grid.

        Args:
            height: H.
            width: W.

        Returns:
            Its folded form.
        """
        return FoldedFlow(self, height, width)


def _subnet(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_channels, 2 * in_channels), nn.ReLU(), nn.Linear(2 * in_channels, out_channels))


class FoldedFlow(nn.Module):
    """A :class:`ConditionalFlow` for inference on one grid, with all that does not depend on the image computed.

    Same latents, up to rounding. Its parameters are buffers: there is nothing to train.

    Args:
        flow: The flow.
        height: H.
        width: W.
    """

    whitening: torch.Tensor
    whitening_bias: torch.Tensor
    whitening_log_det: torch.Tensor

    def __init__(self, flow: ConditionalFlow, height: int, width: int) -> None:
        super().__init__()
        self.grid = (height, width)
        with torch.no_grad():
            weights = flow.folded_weights(height, width)
        self.clamp_alpha = weights.clamp_alpha
        self.num_blocks = len(weights.blocks)
        named = {name: getattr(weights, name) for name in ("whitening", "whitening_bias", "whitening_log_det")}
        for index, block in enumerate(weights.blocks):
            named |= {f"{name}_{index}": tensor for name, tensor in block._asdict().items()}
        for name, tensor in named.items():
            self.register_buffer(name, None if tensor is None else tensor.detach().clone())

    def forward(self, features: torch.Tensor) -> Latents:
        """Map features to latents.

        Args:
            features: Feature map x, shape (B, D, H, W).

        Returns:
            Latents z and log |det J|.

        Raises:
            ValueError: If the grid is another one.
        """
        if tuple(features.shape[2:]) != self.grid:
            msg = f"This flow was folded for features of {self.grid[0]} x {self.grid[1]} positions, got "
            msg += f"{features.shape[2]} x {features.shape[3]}. Resize the images to the model's size."
            raise ValueError(msg)
        blocks = [
            CouplingWeights(*(getattr(self, f"{name}_{index}") for name in CouplingWeights._fields))
            for index in range(self.num_blocks)
        ]
        weights = FlowWeights(self.whitening, self.whitening_bias, self.whitening_log_det, blocks, self.clamp_alpha)
        return flow_latents(features, weights)
